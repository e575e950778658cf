"""Commands that ask the platform one thing: each takes the client and its options."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from opscore_sdk import report
from opscore_sdk.client import Client, media_type_of
from opscore_sdk.errors import NotFoundError
from opscore_sdk.statuses import DONE, FAILED, UsageError
from opscore_sdk.wire import AGENT_THERE, Run, Task

#: Columns of a list, and the fields that they show.
_APPROVALS = {
    "task": "task_id",
    "key": "key",
    "workflow": "workflow",
    "run": "run_id",
    "role": "role",
    "until": "expires_at",
    "message": "message",
}
_SCHEDULES = {
    "schedule": "name",
    "workflow": "workflow",
    "cron": "cron",
    "every s": "every_s",
    "time zone": "timezone",
    "next": "next_at",
    "paused": "paused",
}


def validate(client: Client, options: argparse.Namespace) -> int:
    """Check a definition."""
    valid = client.validate(text_of(options.file), media_type=media_type_of(options.file))
    report.valid(options.file, valid, as_json=options.json)
    return DONE


def graph(client: Client, options: argparse.Namespace) -> int:
    """Show the graph of a file, or of a stored workflow where there is no such file."""
    path = Path(options.what)
    if path.exists() or path.suffix or len(path.parts) > 1:
        media_type = media_type_of(path)
        drawn = client.draw(text_of(path), media_type=media_type, notation=options.format)
    else:
        drawn = client.graph(options.what, notation=options.format)
    report.graph(drawn, options.format, as_json=options.json)
    return DONE


def status(client: Client, options: argparse.Namespace) -> int:
    """Show the newest top runs (or all of them), or one with its tasks."""
    if options.run is None:
        parent = None if options.all else "none"
        report.runs(client.runs(parent=parent, limit=options.limit), as_json=options.json)
        return DONE
    run = client.run(options.run)
    report.run(run, as_json=options.json)
    return FAILED if run.has_ended and run.status != "completed" else DONE


def agents(client: Client, options: argparse.Namespace) -> int:
    """Show the agents, without the terminated ones unless all are wanted; or one with all of it."""
    if options.agent is not None:
        report.agent(client.agent(options.agent), as_json=options.json)
        return DONE
    if options.all:
        found, empty = client.agents(limit=options.limit), "No agent is registered."
    else:
        found = client.agents(limit=options.limit, status=",".join(AGENT_THERE))
        empty = "No agent is registered, or all are terminated: opscore agents --all"
    report.agents(found, empty, as_json=options.json)
    return DONE


def pause(client: Client, options: argparse.Namespace) -> int:
    """Have a run start nothing new."""
    return _changed(client.pause_run, options)


def resume(client: Client, options: argparse.Namespace) -> int:
    """Have a paused run go on."""
    return _changed(client.resume_run, options)


def signal(client: Client, options: argparse.Namespace) -> int:
    """Send a signal to a run."""
    if not options.name or "/" in options.name:
        raise UsageError("The name of a signal has at least one character, and no `/`.")
    answer = client.signal(options.run, options.name, as_json(options.data, "--data"))
    if answer.get("warning"):
        report.warn(answer["warning"])
    report.done(f"{options.name} sent to {options.run}", answer, as_json=options.json)
    return DONE


def approve(client: Client, options: argparse.Namespace) -> int:
    """Let a task go on that waits for an approval."""
    return _decided(client.approve, options)


def reject(client: Client, options: argparse.Namespace) -> int:
    """Refuse what a task asks for."""
    return _decided(client.reject, options)


def approvals(client: Client, options: argparse.Namespace) -> int:
    """Show what waits for a person."""
    rows = [found.raw for found in client.approvals(limit=options.limit)]
    report.rows(rows, _APPROVALS, "Nothing waits for an approval.", as_json=options.json)
    return DONE


def schedules(client: Client, options: argparse.Namespace) -> int:
    """Show the schedules."""
    rows = [found.raw for found in client.schedules(limit=options.limit)]
    report.rows(rows, _SCHEDULES, "There are no schedules.", as_json=options.json)
    return DONE


def why(client: Client, options: argparse.Namespace) -> int:
    """Say why a task, or what is live of a run, is where it is."""
    try:
        found = [client.why_task(options.id)]
    except NotFoundError:
        found = client.why_run(options.id)
    report.reasons(found, as_json=options.json)
    return DONE


def text_of(path: Path) -> str:
    """Return the text of a file; raises UsageError."""
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a UTF-8 text.") from None


def as_json(text: str, option: str) -> Any:
    """Return the value of an option's JSON; raises UsageError."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{option}: not JSON: {error}.") from None


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _changed(change: Callable[[str], Run], options: argparse.Namespace) -> int:
    run = change(options.run)
    report.done(f"{run.id} {run.status}", run.raw, as_json=options.json)
    return DONE


def _decided(decide: Callable[[str, str], Task], options: argparse.Namespace) -> int:
    task = decide(options.task, options.comment)
    report.done(f"{task.id} {task.key} {task.status}", task.raw, as_json=options.json)
    return DONE
