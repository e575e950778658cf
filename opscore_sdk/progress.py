"""Shows how a run goes: a live tree on a terminal, else a line for each change."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timezone
from typing import Any, Protocol, TextIO

from opscore_sdk.wire import Run, RunTask

COLOURS = {
    "completed": "green",
    "running": "cyan",
    "queued": "blue",
    "retrying": "yellow",
    "waiting": "yellow",
    "paused": "yellow",
    "cancelling": "yellow",
    "failed": "red",
    "cancelled": "magenta",
    "skipped": "bright_black",
    "pending": "bright_black",
}
#: Id of a task -> the run that it started: its block, or another workflow.
Inner = Mapping[str, Run]
NOTHING: Inner = {}


class View(Protocol):
    """Something that shows a run."""

    def show(self, run: Run, inner: Inner = NOTHING) -> None:
        """Show the run as it is now; `inner` are the runs that its tasks started."""


def follow(
    runs: Iterable[Run],
    *,
    stream: TextIO | None = None,
    live: bool | None = None,
    inner: Callable[[Run], Inner] = lambda _: NOTHING,
) -> Run:
    """Show each snapshot of a run and return the last one.

    `live` picks the tree (True) or lines (False); None decides by whether `stream`
    (default: stderr) is a terminal. `inner` looks for the runs that a snapshot's tasks started.
    Raises ValueError when there is no snapshot.
    """
    last: Run | None = None
    with opened(stream or sys.stderr, live=live) as view:
        for last in runs:
            view.show(last, inner(last))
    if last is None:
        raise ValueError("nothing to follow")
    return last


@contextmanager
def opened(stream: TextIO, *, live: bool | None = None) -> Iterator[View]:
    """Give a view for as long as the block lasts; the terminal is whole again after it."""
    wanted = stream.isatty() if live is None else live
    tree = _live_tree(stream) if wanted else None
    if tree is None:
        yield Lines(stream)
        return
    with tree as view:
        yield view


class Lines:
    """One line for each change of a task."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown: dict[str, tuple[str, int, int]] = {}
        self._before: Mapping[str, Any] | None = None

    def show(self, run: Run, inner: Inner = NOTHING) -> None:
        """Print what has changed since the last snapshot."""
        if run.waits_for_place and run.waits_for_place != self._before:
            self._print(f"{run.status:<10} {line_before(run.waits_for_place)}")
        self._before = run.waits_for_place
        for key, task in _all_tasks(run, inner):
            state = (task.status, task.attempt, task.losses)
            if self._shown.get(key, ("pending", 1, 0)) != state:
                self._print(f"{task.status:<10} {key}{_where(task)}{_how_long(task)}{why(task)}")
            self._shown[key] = state
        if run.has_ended:
            self._print(f"run {run.status}: {summary(run)}")

    def _print(self, text: str) -> None:
        print(f"{datetime.now().astimezone():%H:%M:%S} {text}", file=self._stream, flush=True)


def summary(run: Run) -> str:
    """Return one line about a run: how many tasks are done, for how long, why it failed."""
    done = sum(task.status == "completed" for task in run.tasks)
    text = (
        f"{done} of {len(run.tasks)} tasks completed in {seconds(run.created_at, run.completed_at)}"
    )
    error = run.error or {}
    return f"{text}: {error['message']}" if error.get("message") else text


def line_before(place: Mapping[str, Any]) -> str:
    """Return one line about the place that a run waits for, and who comes before it."""
    text = f"waits for the concurrency key {place['key']!r}, {place['limit']} at a time"
    if place["held_by"]:
        text += f"; held by {', '.join(place['held_by'])}"
    return text + (f"; {place['ahead']} more come first" if place["ahead"] else "")


def seconds(start: datetime | None, end: datetime | None) -> str:
    """Return how long something took, or takes until now; '' when it has not begun."""
    if start is None:
        return ""
    took = max(((end or datetime.now(timezone.utc)) - start).total_seconds(), 0)
    if took < 60:
        return f"{took:.1f} s"
    return f"{int(took // 60)} min {int(took % 60)} s"


def _live_tree(stream: TextIO) -> AbstractContextManager[View] | None:
    try:
        from opscore_sdk.live import LiveTree  # noqa: PLC0415 - rich is an extra
    except ImportError:
        return None
    return LiveTree(stream)


def _all_tasks(run: Run, inner: Inner, prefix: str = "") -> Iterator[tuple[str, RunTask]]:
    for task in run.tasks:
        yield f"{prefix}{task.key}", task
        if task.id in inner:
            yield from _all_tasks(inner[task.id], inner, f"{prefix}{task.key}.")


def _where(task: RunTask) -> str:
    return f" on {task.agent_name}" if task.agent_name else ""


def _how_long(task: RunTask) -> str:
    if not task.has_ended or task.started_at is None:
        return ""
    return f" in {seconds(task.started_at, task.completed_at)}"


def why(task: RunTask) -> str:
    """Return what is odd about a task, after a colon; '' where nothing is."""
    notes = []
    if task.attempt > 1:
        notes.append(f"attempt {task.attempt}")
    if task.losses:
        notes.append("lost its agent" + (f" {task.losses} times" if task.losses > 1 else ""))
    if task.error and task.status in {"failed", "retrying"}:
        notes.append(str(task.error.get("message", ""))[:200])
    return f": {'; '.join(notes)}" if notes else ""
