"""Runs in every live state, what each must give in the end, and what has yet to be done for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agents.handlers import Context, HandlerError
from tasks import claims, control, inbox, reports
from tasks.models import Run
from workflows.testing import Rehearsal

PLAIN = """
name: plain
tasks:
  a: {capability: work, with: {n: 1}}
  b: {needs: a, capability: work, with: {n: "${{ tasks.a.result.n + 1 }}"}}
  c: {needs: a, capability: work, with: {n: "${{ tasks.a.result.n + 2 }}"}}
  d: {needs: [b, c], capability: work, with: {n: "${{ tasks.b.result.n + tasks.c.result.n }}"}}
outputs: {n: "${{ tasks.d.result.n }}"}
"""
MOODY = """
name: moody
tasks:
  a: {capability: moody, retry: {limit: 1, backoff: {initial: 1h, jitter: none}}}
  b: {needs: a, capability: work, with: {n: 5}}
outputs: {n: "${{ tasks.b.result.n }}"}
"""


def moody(task: Context) -> None:
    if task.attempt == 1:
        raise HandlerError("not today")


@dataclass
class Live:
    """A run in the middle, what it must give in the end, and what somebody has yet to do."""

    run: Run
    outputs: Any
    go_on: Callable[[], object] = lambda: None


def queued(stage: Rehearsal) -> Live:
    return Live(stage.start(PLAIN), {"n": 5})


def half_done(stage: Rehearsal) -> Live:
    run = stage.start(PLAIN)
    for key in "ab":
        stage.step(run.tasks.get(key=key))
    assert list(stage.tasks(run).values())[:4] == ["completed", "completed", "queued", "pending"]
    return Live(run, {"n": 5})


def running(stage: Rehearsal) -> Live:
    run = stage.start(PLAIN)
    task = run.tasks.get(key="a")
    held = claims.claim(task.id, task.attempt, stage.session.id)
    assert held
    # Its agent worked on, and reports to the newest code.
    return Live(run, {"n": 25}, lambda: reports.complete(task.id, held.fence, {"n": 11}))


def retrying(stage: Rehearsal) -> Live:
    run = stage.start(MOODY)
    stage.step(run.tasks.get(key="a"))
    assert run.tasks.get(key="a").status == "retrying"
    return Live(run, {"n": 5})


def paused(stage: Rehearsal) -> Live:
    run = stage.start(PLAIN)
    control.pause_run(run.pk)
    return Live(run, {"n": 5}, lambda: control.resume_run(run.pk))


def waiting_for_time(stage: Rehearsal) -> Live:
    return Live(stage.start(flow("{uses: wait, with: {duration: 1h}}")), {"a": None})


def waiting_for_approval(stage: Rehearsal) -> Live:
    live = Live(stage.start(flow("{uses: approval}")), ANSWERED)
    task = live.run.tasks.get(key="a")
    live.go_on = lambda: inbox.decide(task.id, "approve", by="me")
    return live


def waiting_for_a_signal(stage: Rehearsal) -> Live:
    run = stage.start(flow("{uses: signal, with: {name: go}}"))
    return Live(run, {"a": 7}, lambda: inbox.send(run.pk, "go", 7))


def waiting_for_items(stage: Rehearsal) -> Live:
    task = "{for_each: [1, 2, 3], max_parallel: 1, capability: work, with: {n: '${{ item }}'}}"
    run = stage.start(flow(task))
    stage.step(run.tasks.get(key="a[0]"))
    return Live(run, {"a": [{"n": 1}, {"n": 2}, {"n": 3}]})


def waiting_for_a_run_inside(stage: Rehearsal) -> Live:
    inside = "{b: {capability: work, with: {n: 3}}}"
    run = stage.start(flow(f"{{tasks: {inside}, outputs: {{n: '${{{{ tasks.b.result.n }}}}'}}}}"))
    return Live(run, {"a": {"n": 3}})


def created(stage: Rehearsal) -> Live:
    text = f"{flow('{capability: work, with: {n: 1}}')}concurrency: 1\n"
    stage.start(text)
    run = stage.start(text)
    run.refresh_from_db()
    assert run.status == "created"
    return Live(run, {"a": {"n": 1}})


def paused_with_its_workflow(stage: Rehearsal) -> Live:
    run = stage.start(PLAIN)
    control.pause(stage.project, "plain")
    return Live(run, {"n": 5}, lambda: control.resume(stage.project, "plain"))


def with_an_end_of_its_own(stage: Rehearsal) -> Live:
    text = flow("{capability: work, with: {n: 1}}")
    return Live(
        stage.start(f"{text}finally: {{z: {{capability: work, with: {{n: 2}}}}}}"), {"a": {"n": 1}}
    )


def before_a_condition(stage: Rehearsal) -> Live:
    text = flow("{needs: z, if: tasks.z.result.n > 1, capability: work, with: {n: 1}}")
    run = stage.start(text.replace("outputs", "  z: {capability: work, with: {n: 2}}\noutputs"))
    return Live(run, {"a": {"n": 1}})


def flow(task: str) -> str:
    return f'name: flow\ntasks:\n  a: {task}\noutputs: {{a: "${{{{ tasks.a.result }}}}"}}\n'


ANSWERED = {"a": {"approved": True, "by": "me", "comment": ""}}
#: What the first schema can hold: agents' tasks in a graph, and retries.
SIMPLE = [queued, half_done, running, retrying, paused]
#: What it cannot.
RICH = [
    waiting_for_time,
    waiting_for_approval,
    waiting_for_a_signal,
    waiting_for_items,
    waiting_for_a_run_inside,
    created,
    paused_with_its_workflow,
    with_an_end_of_its_own,
    before_a_condition,
]
