"""The workflows of a chaos run, in the language that users write.

A new construct of the language gets its entry in `WORKFLOWS`; clients choose among all of them.
Every workflow must be able to complete: a run that does not counts as lost.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

import httpx

Tasks = dict[str, dict[str, Any]]

# Outlives a database that is away: its errors fail attempts of handlers that use it.
_PATIENT = {"limit": 100, "initial": 0.2, "factor": 1.5, "max": 2}


def _task(*needs: str, ms: int = 50, capability: str = "chaos_plain", **inputs: Any) -> Any:
    return {
        "capability": capability,
        "needs": list(needs),
        "with": {"ms": ms, **inputs},
        "retry": _PATIENT,
    }


def _exact(*needs: str, ms: int = 50) -> Any:
    return _task(*needs, ms=ms, capability="chaos_exact")


def chain() -> Tasks:
    """Return eight tasks behind each other."""
    tasks = {"t0": _exact()}
    for place in range(1, 8):
        tasks[f"t{place}"] = (_exact if place % 2 else _task)(f"t{place - 1}", ms=40)
    return tasks


def fork_join() -> Tasks:
    """Return a fork of six that meets again, and a fork of two runs behind it."""
    sides = {f"side{place}": _exact("start", ms=30 * place) for place in range(6)}
    runs = {
        "left1": _task("join"),
        "left2": _exact("left1"),
        "right1": _exact("join", ms=100),
        "right2": _task("right1"),
    }
    return {"start": _task(), **sides, "join": _exact(*sides), **runs, "end": _exact(*runs)}


def irregular() -> Tasks:
    """Return fourteen tasks, each needing any of those before it."""
    rng = Random(7)
    tasks: Tasks = {}
    for place in range(14):
        needs = [key for key in tasks if rng.random() < 0.25]
        tasks[f"t{place}"] = rng.choice((_task, _exact))(*needs, ms=rng.choice((10, 40, 120)))
    return tasks


def retrying() -> Tasks:
    """Return a graph in which tasks fail before they succeed, on the way to a join."""
    return {
        "start": _exact(),
        "flaky": _task("start", capability="chaos_flaky", succeed_at=3),
        "beside": _exact("start", ms=100),
        "join": _exact("flaky", "beside"),
        "last": _task("join", capability="chaos_flaky", succeed_at=2),
    }


def slow() -> Tasks:
    """Return tasks that are long enough to be taken away from a frozen host."""
    sides = {f"side{place}": _exact("start", ms=1500) for place in range(3)}
    return {"start": _task(ms=200), **sides, "join": _exact(*sides)}


def constructs() -> Tasks:
    """Return what the database decides step by step: a list, a choice, a loop, a block, a wait."""
    return {
        "start": _exact(),
        "each": {**_exact("start"), "for_each": list(range(6)), "max_parallel": 3},
        "chosen": {**_exact("start"), "if": "true"},
        "other": {**_exact("start"), "if": "tasks.start.result == 'no'"},
        "meet": {**_exact("each", "chosen", "other"), "join": "none_failed"},
        "again": {**_task("start"), "repeat": {"max": 3, "delay": 0.2}},
        "inner": {
            "needs": ["meet"],
            "with": {"ms": 20},
            "tasks": {
                "one": _exact(),
                "many": {**_exact("one"), "for_each": [1, 2, 3]},
            },
            "retry": 3,
        },
        "pause": {"needs": ["meet"], "uses": "wait", "with": {"duration": "300ms"}},
        "last": {**_exact("inner", "pause", "again"), "join": "all_done"},
    }


WORKFLOWS = {
    "chain": chain(),
    "fork_join": fork_join(),
    "irregular": irregular(),
    "retrying": retrying(),
    "slow": slow(),
    "constructs": constructs(),
}
#: How often clients choose each; the others once.
WEIGHTS = {"chain": 4, "fork_join": 4, "irregular": 4, "retrying": 4, "constructs": 2}


def choose(rng: Random, names: list[str]) -> str:
    """Return the name of a workflow, one of `names`."""
    return rng.choices(names, [WEIGHTS.get(name, 1) for name in names])[0]


def upload(url: str, key: str) -> None:
    """Upload every workflow to a platform."""
    for name, tasks in WORKFLOWS.items():
        answer = httpx.post(
            f"{url}/api/v1/workflows",
            content=json.dumps({"name": name, "tasks": tasks}),
            headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
            timeout=30,
        )
        if answer.is_error:
            raise ValueError(f"workflow {name}: {answer.text}")
