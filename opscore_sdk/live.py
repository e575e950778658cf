"""The live tree of a run on a terminal; needs rich (`pip install opscore-sdk[cli]`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group
from rich.control import Control
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from opscore_sdk.progress import COLOURS, NOTHING, Inner, line_before, seconds, why
from opscore_sdk.tree import Row, fitted, rows_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from opscore_sdk.wire import Run

_MARKS = {
    "completed": "✔",
    "running": "▶",
    "retrying": "↻",
    "failed": "✘",
    "cancelled": "⊘",
    "skipped": "–",
}
#: Lines above the tree: name and bar; below it the cursor.
_HEAD = 3
#: Rows that are left standing when the run has ended.
_MOST = 500
_BAR = 40
#: Columns beside the name, by what they say; one is shown while the name keeps `_NAME` at least.
_STATUS, _TIME, _AGENT, _GAP, _NAME = 10, 12, 16, 2, 20
#: The part of the terminal that notes may have.
_NOTES = 0.35


class LiveTree:
    """Draws the run four times a second, as wide as the terminal is at that moment."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, force_terminal=True)
        self._seen: tuple[Run, Inner] | None = None
        self._live = _Screen(
            console=self._console,
            refresh_per_second=4,
            get_renderable=self._drawn,
            # A tree that is higher than the terminal would be drawn wrongly: it is made to fit.
            vertical_overflow="crop",
        )

    def __enter__(self) -> LiveTree:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, run: Run, inner: Inner = NOTHING) -> None:
        """Draw the run as it is now."""
        self._seen = run, inner
        if run.has_ended:
            self._live.vertical_overflow = "visible"
        self._live.refresh()

    def _drawn(self) -> RenderableType:
        if self._seen is None:
            return Text("")
        run, inner = self._seen
        width, height = self._console.size
        room = _MOST if run.has_ended else max(height - _HEAD - 1, 3)
        return drawn(run, inner, width=width, room=room)


class _Screen(Live):
    """A live display that begins anew where the terminal has another size."""

    def refresh(self) -> None:
        """Draw; lines that the terminal has broken otherwise meanwhile are wiped first."""
        size = self.console.size
        if size != getattr(self, "_size", size):
            self.console.control(Control.clear(), Control.home())
        self._size = size
        super().refresh()


def drawn(run: Run, inner: Inner, *, width: int, room: int) -> RenderableType:
    """Return a run as a tree with a progress bar, at most so wide and so many rows high."""
    every = [run, *inner.values()]
    tasks = [task for one in every for task in one.tasks]
    ended = sum(task.has_ended for task in tasks)
    head = Text.assemble(
        (run.workflow or "task", "bold"),
        f" {run.version}  " if run.version else "  ",
        (run.status, COLOURS.get(run.status, "")),
        f"  {ended}/{len(tasks)}  {seconds(run.created_at, run.completed_at)}",
        no_wrap=True,
        overflow="ellipsis",
    )
    # In a grid, for by itself it ends no line.
    bar = Table.grid()
    bar.add_row(ProgressBar(total=max(len(tasks), 1), completed=ended, width=min(_BAR, width)))
    before = []
    if run.waits_for_place:
        said = line_before(run.waits_for_place)
        before.append(Text(said, "yellow", no_wrap=True, overflow="ellipsis"))
    return Group(head, bar, *before, _table(fitted(rows_of(run, inner), room), width))


def _table(rows: list[Row], width: int) -> Table:
    notes = [why(row.task).removeprefix(": ") if row.task else "" for row in rows]
    columns = _columns(rows, notes, width)
    table = Table.grid(padding=(0, _GAP, 0, 0), pad_edge=False)
    for name, size in columns.items():
        style = "dim" if name == "agent" else "yellow" if name == "note" else ""
        table.add_column(width=size, no_wrap=True, overflow="ellipsis", style=style)
    for row, note in zip(rows, notes, strict=True):
        cells = {"name": _name(row), **_cells(row), "note": Text(note)}
        table.add_row(*(cells[name] for name in columns))
    return table


def _columns(rows: list[Row], notes: list[str], width: int) -> dict[str, int]:
    """Return name and width of each column that there is room for."""
    longest = max((_name(row).cell_len for row in rows), default=1)
    note = min(max(map(len, notes), default=0), int(width * _NOTES))
    sizes, left = {}, width
    for name, size in {"status": _STATUS, "time": _TIME, "note": note, "agent": _AGENT}.items():
        if size and left - size - _GAP >= min(longest, _NAME):
            sizes[name] = size
            left -= size + _GAP
    order = [name for name in ("status", "agent", "time", "note") if name in sizes]
    return {"name": min(left, longest), **{name: sizes[name] for name in order}}


def _name(row: Row) -> Text:
    if row.task is None:
        return Text(f"{row.branch}{row.label}", "dim")
    mark = _MARKS.get(row.task.status, "·")
    colour = COLOURS.get(row.task.status, "")
    return Text.assemble((row.branch, "dim"), (mark, colour), f" {_plain(row.label)}")


def _cells(row: Row) -> dict[str, Text]:
    task = row.task
    if task is None:
        return {name: Text("") for name in ("status", "agent", "time")}
    took = seconds(task.started_at, task.completed_at) if task.started_at else ""
    return {
        "status": Text(task.status, COLOURS.get(task.status, "")),
        "agent": Text(_plain(task.agent_name)),
        "time": Text(took),
    }


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)
