"""Commands about single tasks: each takes the client and its options."""

from __future__ import annotations

import argparse

from opscore_sdk import report, waiting
from opscore_sdk.asking import given
from opscore_sdk.client import Client
from opscore_sdk.errors import NotFoundError
from opscore_sdk.statuses import DONE
from opscore_sdk.wire import Run

_TASKS = {
    "task": "id",
    "key": "key",
    "capability": "capability",
    "status": "status",
    "agent": "agent_name",
    "created": "created_at",
}


def submit(client: Client, options: argparse.Namespace) -> int:
    """Submit one task; with --wait show its progress, then its result."""
    inputs = waiting.inputs_of(options)
    wishes = given(
        priority=options.priority,
        fairness_key=options.fairness_key,
        requires=options.require or None,
    )
    task = client.submit(options.capability, inputs=inputs, **wishes)
    if not options.wait:
        said = f"task {task.id} {task.status}; see: opscore why {task.id}"
        report.done(said, task.raw, as_json=options.json)
        return DONE
    report.say(f"task {task.id} of run {task.run_id}; see it: opscore status {task.run_id}")

    def show(_: Run) -> None:
        report.result(client.task(task.id), as_json=options.json)

    return waiting.wait(client, task.run_id, options, show)


def tasks(client: Client, options: argparse.Namespace) -> int:
    """Show the newest tasks."""
    chosen = given(
        status=options.status,
        capability=options.capability,
        agent=options.agent,
        run=options.of_run,
    )
    found = client.tasks(limit=options.limit, **chosen)
    rows = [{**task.raw, "agent_name": task.agent_name} for task in found]
    shown = [task.raw for task in found] if options.json else rows
    report.rows(shown, _TASKS, "There are no such tasks.", as_json=options.json)
    return DONE


def cancel(client: Client, options: argparse.Namespace) -> int:
    """Cancel a run, or a task of one."""
    try:
        run = client.cancel_run(options.run)
    except NotFoundError as no_run:
        try:
            task = client.cancel_task(options.run)
        except NotFoundError:
            raise no_run from None
        report.done(f"{task.id} {task.status}", task.raw, as_json=options.json)
        return DONE
    report.done(f"{run.id} {run.status}", run.raw, as_json=options.json)
    return DONE
