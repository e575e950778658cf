"""Commands about what was said: a task's log, an agent's output, the platform's events."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from opscore_sdk import report
from opscore_sdk.asking import given
from opscore_sdk.client import Client
from opscore_sdk.errors import NotFoundError
from opscore_sdk.statuses import DONE, UsageError

#: Lines that one look may bring: as many as the platform keeps at hand of an agent.
_MOST = 1000
#: Statuses in which an agent says nothing more.
_SILENT = ("error", "terminated")
_EVENTS = {
    "at": "at",
    "event": "kind",
    "by": "actor",
    "run": "run_id",
    "task": "task_id",
    "data": "data",
}


def logs(client: Client, options: argparse.Namespace) -> int:
    """Show the end of what an agent wrote to stdout and stderr, or of a task's log."""
    if sum(said is not None for said in (options.agent, options.task, options.of)) != 1:
        raise UsageError("Say one: the id of a task, the name of an agent, --agent or --task.")
    if options.of is not None:
        _find(client, options)
    if options.follow:
        said = _of_task(client, options) if options.task is not None else _of_agent(client, options)
        for text, row in said:
            report.line(text, row, as_json=options.json)
        return DONE
    if options.task is not None:
        lines = client.logs(options.task, limit=options.lines)
        return _show([line.text for line in lines], [line.raw for line in lines], options)
    answer = client.agent_logs(options.agent, lines=options.lines)
    if not answer["fresh"]:
        told = answer["written_at"] or "never"
        report.warn(f"its supervisor does not answer; these lines were told: {told}")
    return _show(answer["lines"], answer, options)


def _find(client: Client, options: argparse.Namespace) -> None:
    """Find out what was named: a task by its id, else an agent."""
    try:
        options.task = client.task(options.of).id
    except NotFoundError:
        options.agent = client.agent(options.of).name


def events(client: Client, options: argparse.Namespace) -> int:
    """Show the newest events, of a run, a task or an agent where one is named."""
    agent = None if options.agent is None else client.agent(options.agent).id
    chosen = given(run=options.of_run, task=options.of_task, agent=agent, kind=options.kind)
    rows = [event.raw for event in client.events(limit=options.limit, **chosen)]
    report.rows(rows, _EVENTS, "There are no such events.", as_json=options.json)
    return DONE


def _of_task(client: Client, options: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    last, limit = 0, options.lines
    for _ in _looks(lambda: client.task(options.task).has_ended, options.every_s):
        for line in client.logs(options.task, limit=limit):
            if line.id > last:
                last = line.id
                yield line.text, line.raw
        limit = _MOST


def _of_agent(client: Client, options: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    known: list[str] | None = None
    for _ in _looks(lambda: client.agent(options.agent).status in _SILENT, options.every_s):
        lines = client.agent_logs(options.agent, lines=_MOST)["lines"]
        fresh = lines[-options.lines :] if known is None else _fresh(known, lines)
        for text in fresh:
            yield text, {"text": text}
        known = lines


def _looks(has_ended: Callable[[], bool], every_s: float) -> Iterator[None]:
    """Yield for each look; the last one comes after the end, so it misses nothing."""
    while not has_ended():
        yield
        time.sleep(every_s)
    yield


def _fresh(known: Sequence[str], lines: Sequence[str]) -> Sequence[str]:
    """Return what came after `known`, of two looks at the last lines of a growing output."""
    for start in range(len(known)):
        both = len(known) - start
        if known[start:] == lines[:both]:
            return lines[both:]
    return lines


def _show(lines: list[str], answer: Any, options: argparse.Namespace) -> int:
    report.done("\n".join(lines), answer, as_json=options.json)
    return DONE
