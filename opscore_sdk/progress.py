"""Shows how a run goes: a live table on a terminal, else a line for each change."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from opscore_sdk.wire import Run, RunTask

if TYPE_CHECKING:
    from rich.console import RenderableType

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
_MARKS = {
    "completed": "✔",
    "running": "▶",
    "retrying": "↻",
    "failed": "✘",
    "cancelled": "⊘",
    "skipped": "–",
}


class View(Protocol):
    """Something that shows a run."""

    def show(self, run: Run) -> None:
        """Show the run as it is now."""


def follow(runs: Iterable[Run], *, stream: TextIO | None = None, live: bool | None = None) -> Run:
    """Show each snapshot of a run and return the last one.

    `live` picks the table (True) or lines (False); None decides by whether `stream`
    (default: stderr) is a terminal. Raises ValueError when there is no snapshot.
    """
    last: Run | None = None
    with opened(stream or sys.stderr, live=live) as view:
        for last in runs:
            view.show(last)
    if last is None:
        raise ValueError("nothing to follow")
    return last


@contextmanager
def opened(stream: TextIO, *, live: bool | None = None) -> Iterator[View]:
    """Give a view for as long as the block lasts; the terminal is whole again after it."""
    wanted = stream.isatty() if live is None else live
    table = _rich_table(stream) if wanted else None
    if table is None:
        yield Lines(stream)
        return
    with table as view:
        yield view


class Lines:
    """One line for each change of a task."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown: dict[str, tuple[str, int, int]] = {}
        self._before: Mapping[str, Any] | None = None

    def show(self, run: Run) -> None:
        """Print what has changed since the last snapshot."""
        if run.waits_for_place and run.waits_for_place != self._before:
            self._print(f"{run.status:<10} {line_before(run.waits_for_place)}")
        self._before = run.waits_for_place
        for task in run.tasks:
            state = (task.status, task.attempt, task.losses)
            if self._shown.get(task.key, ("pending", 1, 0)) != state:
                self._print(
                    f"{task.status:<10} {task.key}{_where(task)}{_how_long(task)}{_why(task)}"
                )
            self._shown[task.key] = state
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


def table_of(run: Run) -> RenderableType:
    """Return a run as a rich table with a progress bar; needs rich."""
    from rich.console import Group  # noqa: PLC0415 - rich is an extra
    from rich.progress_bar import ProgressBar  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    ended = sum(task.has_ended for task in run.tasks)
    head = Text.assemble(
        (run.workflow or "task", "bold"),
        f" {run.version}  " if run.version else "  ",
        (run.status, COLOURS.get(run.status, "")),
        f"  {ended}/{len(run.tasks)}  {seconds(run.created_at, run.completed_at)}",
    )
    before = [Text(line_before(run.waits_for_place), "yellow")] if run.waits_for_place else []
    table = Table(box=None, pad_edge=False, expand=False, padding=(0, 2, 0, 0))
    for title in ("", "task", "status", "agent", "time", ""):
        table.add_column(title, style="dim" if title == "agent" else "", no_wrap=title != "")
    for task in run.tasks:
        colour = COLOURS.get(task.status, "")
        table.add_row(
            Text(_MARKS.get(task.status, "·"), style=colour),
            task.key,
            Text(task.status, style=colour),
            task.agent_name,
            seconds(task.started_at, task.completed_at) if task.started_at else "",
            Text(_why(task).removeprefix(": "), style="yellow"),
        )
    bar = ProgressBar(total=max(len(run.tasks), 1), completed=ended, width=40)
    return Group(head, *before, bar, table)


class _Table:
    """The live table; drawn again at most ten times a second."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console  # noqa: PLC0415 - rich is an extra
        from rich.live import Live  # noqa: PLC0415

        console = Console(file=stream, force_terminal=True)
        # A table that is higher than the terminal would be drawn wrongly: its end is cut.
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="ellipsis")

    def __enter__(self) -> _Table:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, run: Run) -> None:
        """Draw the run as it is now."""
        if run.has_ended:
            self._live.vertical_overflow = "visible"
        self._live.update(table_of(run), refresh=True)


def _rich_table(stream: TextIO) -> _Table | None:
    try:
        return _Table(stream)
    except ImportError:
        return None


def _where(task: RunTask) -> str:
    return f" on {task.agent_name}" if task.agent_name else ""


def _how_long(task: RunTask) -> str:
    if not task.has_ended or task.started_at is None:
        return ""
    return f" in {seconds(task.started_at, task.completed_at)}"


def _why(task: RunTask) -> str:
    notes = []
    if task.attempt > 1:
        notes.append(f"attempt {task.attempt}")
    if task.losses:
        notes.append("lost its agent" + (f" {task.losses} times" if task.losses > 1 else ""))
    if task.error and task.status in {"failed", "retrying"}:
        notes.append(str(task.error.get("message", ""))[:200])
    return f": {'; '.join(notes)}" if notes else ""
