"""What the command writes to stdout: tables for people, JSON for programs."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from opscore_sdk.errors import ApiError, Problem
from opscore_sdk.progress import COLOURS, line_before, seconds, summary
from opscore_sdk.wire import Explanation, RegisteredAgent, Run, Task, Valid

_GAP = "  "
#: Characters of the last column that are shown on the narrowest terminal.
_LEAST = 20
_ANSI = {
    "green": "32",
    "cyan": "36",
    "blue": "34",
    "yellow": "33",
    "red": "31",
    "magenta": "35",
    "bright_black": "90",
}


def started(run: Run, *, as_json: bool) -> None:
    """Say that a run has begun."""
    if as_json:
        return _json(run.raw)
    print(f"{run.id} {run.status}: {len(run.tasks)} tasks of {run.workflow} {run.version}")
    print(f"See: opscore status {run.id}")
    return None


def say(text: str) -> None:
    """Write a line for people to stderr."""
    print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Write a warning to stderr."""
    say(f"opscore: warning: {text}")


def done(text: str, answer: Any, *, as_json: bool) -> None:
    """Say in one line that something was done, or write what the platform answered."""
    if as_json:
        return _json(answer)
    print(text)
    return None


def finding(status: str, part: str, message: str, advice: str) -> None:
    """Write what was found about a part, and below it what to do."""
    code = {"ok": "32", "warn": "33", "fail": "31"}.get(status, "0")
    print(
        f"{_coloured(f'{status:<4}', code)}  {_one_line(part):<12}  {_one_line(message)}",
        flush=True,
    )
    if advice and status != "ok":
        print(f"{'':<20}→ {_one_line(advice)}", flush=True)


def value(value: Any) -> None:
    """Write any JSON."""
    _json(value)


def graph(drawn: str, notation: str, *, as_json: bool) -> None:
    """Write a graph."""
    if as_json:
        return _json({"format": notation, "graph": drawn})
    print(drawn.rstrip("\n"))
    return None


def rows(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    empty: str,
    *,
    as_json: bool,
) -> None:
    """Write a list; a column is left out where no row has anything in it."""
    if as_json:
        return _json(rows)
    if not rows:
        print(empty)
        return None
    cells = {title: [_text(row.get(name)) for row in rows] for title, name in columns.items()}
    kept = {title: column for title, column in cells.items() if any(column)}
    return _table(list(kept), list(zip(*kept.values(), strict=True)))


def ended(run: Run, *, as_json: bool) -> None:
    """Write the outputs of a run that has ended; its progress was shown on stderr."""
    if as_json:
        _json(run.raw)
    elif run.outputs is not None:
        _json(run.outputs)


def result(task: Task, *, as_json: bool) -> None:
    """Write what a task returned; its progress, with an error, was shown on stderr."""
    if as_json:
        _json(task.raw)
    elif task.status == "completed":
        _json(task.result)


def line(text: str, row: Any, *, as_json: bool) -> None:
    """Write one of many lines, as soon as it is there."""
    print(json.dumps(row, ensure_ascii=False) if as_json else text, flush=True)


def run(run: Run, *, as_json: bool) -> None:
    """Write one run with its tasks."""
    if as_json:
        return _json(run.raw)
    print(f"{run.workflow or 'task'} {run.version} {run.id}".replace("  ", " "))
    print(f"{run.status}: {summary(run)}")
    if run.waits_for_place:
        print(line_before(run.waits_for_place))
    rows = [
        (
            task.key,
            task.status,
            task.agent_name,
            seconds(task.started_at, task.completed_at),
            _error(task.error),
        )
        for task in run.tasks
    ]
    _table(("task", "status", "agent", "time", ""), rows)
    if run.outputs is not None:
        _json(run.outputs)
    return None


def runs(runs: Iterable[Run], *, as_json: bool, empty: str | None = None) -> None:
    """Write a list of runs; `empty` is said where there are none."""
    runs = list(runs)
    if as_json:
        return _json([run.raw for run in runs])
    if not runs:
        print(empty or "There are no runs yet: opscore run FILE --wait")
        return None
    rows = [
        (
            run.id,
            run.workflow or "(a task)",
            run.status,
            f"{run.created_at.astimezone():%Y-%m-%d %H:%M:%S}" if run.created_at else "",
            seconds(run.created_at, run.completed_at),
        )
        for run in runs
    ]
    return _table(("run", "workflow", "status", "started", "time"), rows)


def agents(agents: Iterable[RegisteredAgent], empty: str, *, as_json: bool) -> None:
    """Write a list of agents."""
    agents = sorted(agents, key=lambda agent: agent.name)
    if as_json:
        return _json([agent.raw for agent in agents])
    shown = [
        {
            "agent": agent.name,
            "kind": agent.kind,
            "status": "paused" if agent.paused else agent.status,
            "capabilities": ", ".join(agent.capabilities),
            **_usage(agent),
            "id": agent.id,
            "": agent.reason.partition("\n")[0],
        }
        for agent in agents
    ]
    return rows(
        shown,
        {title: title for title in shown[0]} if shown else {},
        empty,
        as_json=False,
    )


def agent(agent: RegisteredAgent, *, as_json: bool) -> None:
    """Write all of an agent, its reason with all lines."""
    if as_json:
        return _json(agent.raw)
    facts = {
        "kind": agent.kind,
        "status": "paused" if agent.paused else agent.status,
        "host": agent.host,
        "capabilities": ", ".join(agent.capabilities),
        "labels": ", ".join(agent.labels),
        "tasks": str(agent.running_tasks),
        "restarts": str(agent.restarts),
        **_usage(agent),
        "id": agent.id,
    }
    print(agent.name)
    for name, said in facts.items():
        if said:
            print(f"  {name:<13} {_one_line(said)}")
    for text in agent.reason.splitlines():
        print(f"  {_one_line(text)}")
    return None


def _usage(agent: RegisteredAgent) -> dict[str, str]:
    if not agent.usage:
        return {"memory": "", "cpu": ""}
    memory, cpu = agent.usage["memory_bytes"], agent.usage["cpu_percent"]
    return {"memory": f"{memory / 2**20:.0f} MiB", "cpu": f"{cpu:.0f} %"}


def reasons(explanations: Sequence[Explanation], *, as_json: bool) -> None:
    """Write why tasks are where they are, the first reason first."""
    if as_json:
        return _json([one.raw for one in explanations])
    if not explanations:
        print("Nothing of this run is live.")
    for one in explanations:
        print(f"{one.key} {one.status}")
        for reason in one.reasons:
            until = f" (until {_local(reason.until)})" if reason.until else ""
            print(f"  {reason.message}{until}")
        if one.expected_start:
            print(f"  Expected to start at {_local(one.expected_start)}.")
    return None


def _local(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def valid(file: Path, valid: Valid, *, as_json: bool) -> None:
    """Say that a definition has no problems; warnings go to stderr."""
    if as_json:
        return _json(valid.raw)
    for warning in valid.warnings:
        say(f"{place_of(warning, file)}: warning: {warning}")
    print(f"{file}: valid, {valid.tasks} task{'' if valid.tasks == 1 else 's'}")
    return None


def place_of(problem: Problem, file: Path | None) -> str:
    """Return where a problem is, as `file:line`, for what is written before it."""
    file = Path(problem.file) if problem.file else file
    if file is None:
        return "opscore"
    return f"{file}:{problem.line}" if problem.line else str(file)


def error_as_json(error: Exception) -> dict[str, Any]:
    """Return an error as a program reads it."""
    body: dict[str, Any] = {"error": str(error)}
    if isinstance(error, ApiError):
        body |= {"status": error.status, "code": error.code, "request_id": error.request_id}
        body["errors"] = [
            {
                "message": problem.message,
                "path": problem.path,
                "line": problem.line,
                **({"file": problem.file} if problem.file else {}),
            }
            for problem in error.errors
        ]
    return body


def _json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _error(error: Any) -> str:
    return str((error or {}).get("message", ""))


def _text(value: Any) -> str:
    if value is None or value is False:
        return ""
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write rows under titles. Only a terminal gets colours, and its last column cut to fit."""
    lines = [tuple(map(_one_line, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(titles, *lines, strict=True)]
    room = _room(widths) if sys.stdout.isatty() else None
    _line(titles, widths, None, "1")
    for line in lines:
        _line(line, widths, room, "")


def _one_line(cell: str) -> str:
    """Return the text without what would break the line, or move a terminal's cursor."""
    joined = " | ".join(cell.splitlines())
    return "".join(letter if letter.isprintable() else " " for letter in joined)


def _room(widths: Sequence[int]) -> int:
    """Return how wide the last column may be, so that a terminal's lines do not break."""
    used = sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)
    return max(shutil.get_terminal_size().columns - used, _LEAST)


def _line(cells: Sequence[str], widths: Sequence[int], room: int | None, style: str) -> None:
    shown = list(cells)
    if room is not None and len(shown[-1]) > room:
        shown[-1] = shown[-1][: room - 1] + "…"
    padded = [cell.ljust(width) for cell, width in zip(shown, widths, strict=True)]
    padded[-1] = shown[-1]
    print(_GAP.join(_coloured(cell, style) for cell in padded).rstrip())


def coloured_diff(line: str) -> str:
    """Return a line of a difference as it is shown."""
    shown = _one_line(line)
    return _coloured(shown, {"+": "32", "-": "31", "@": "36"}.get(shown[:1], "0"))


def _coloured(cell: str, style: str) -> str:
    code = style or _ANSI.get(COLOURS.get(cell.rstrip(), ""), "")
    if not code or not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return cell
    return f"\x1b[{code}m{cell}\x1b[0m"
