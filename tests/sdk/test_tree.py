"""A run as a tree: where its tasks stand, and how it fits a terminal."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from rich.console import Console

from opscore_sdk.live import LiveTree, drawn
from opscore_sdk.progress import Lines
from opscore_sdk.tree import fitted, rows_of
from opscore_sdk.wire import Run

START = "2026-01-01T00:00:00Z"
END = "2026-01-01T00:00:02Z"


def run_of(status: str = "running", **needs: str) -> Run:
    """A run; each task is given as `key="status, need, need"`."""
    tasks = [task_of(key.replace("__", "["), *said.split(", ")) for key, said in needs.items()]
    times = {"created_at": START, "completed_at": END}
    return Run.read({"id": "r", "status": status, "workflow": "shape", "tasks": tasks, **times})


def task_of(key: str, status: str, *needs: str) -> dict[str, Any]:
    key = key + "]" if "[" in key else key
    agent = {"id": "1", "name": "adder"} if status == "running" else None
    return {
        "id": f"id of {key}",
        "key": key,
        "status": status,
        "needs": list(needs),
        "agent": agent,
        "started_at": START,
        "completed_at": END,
        "error": {"message": "no luck"} if status == "failed" else None,
    }


def tree(run: Run, inner: Mapping[str, Run] | None = None) -> list[str]:
    return [f"{row.branch}{row.label}" for row in rows_of(run, inner or {})]


REVIEW = run_of(
    scan="completed",
    history="running, scan",
    ownership="pending, history",
    lint="completed, scan",
    tests="running, scan",
    hotspots="pending, ownership, lint, tests",
    closeup="pending, hotspots",
    dive="pending, hotspots",
    report="pending, closeup, dive",
)


def test_branches_stand_below_and_joins_beside_what_they_come_from() -> None:
    assert tree(REVIEW) == [
        "scan",
        "├─ history",
        "│  ownership",
        "├─ lint",
        "└─ tests",
        "hotspots",
        "├─ closeup",
        "└─ dive",
        "report",
    ]


def test_a_chain_of_any_length_stays_at_its_height() -> None:
    keys = [f"t{number}" for number in range(3000)]
    needs = {key: f"pending, {before}" for before, key in pairwise(keys)}
    assert tree(run_of(t0="pending", **needs)) == keys


def test_tasks_without_needs_are_branches_of_the_run() -> None:
    run = run_of(a="pending", b="pending", c="pending, a, b", d="pending, nobody")
    assert tree(run) == ["├─ a", "├─ b", "└─ d", "c"]


def test_items_and_blocks_stand_below_their_task() -> None:
    run = run_of(each="waiting", each__0="running", each__1="queued", block="waiting, each")
    inner = run_of(one="running", two="pending, one", three="pending, one")
    deeper = run_of(x="queued")
    found = {"id of block": inner, "id of two": deeper, "id of each[1]": run_of(y="queued")}
    assert tree(run, found) == [
        "each",
        "├─ [0]",
        "└─ [1]",
        "   ┆ y",
        "block",
        "┆ one",
        "┆ ├─ two",
        "┆ │  ┆ x",
        "┆ └─ three",
    ]


def test_a_run_that_would_hold_itself_is_drawn_to_some_depth() -> None:
    run = run_of(a="waiting")
    assert len(tree(run, {"id of a": run})) < 20


def test_where_there_is_no_room_what_is_at_work_stays() -> None:
    rows = fitted(rows_of(REVIEW), 4)
    assert [row.label for row in rows] == [
        "history",
        "ownership",
        "tests",
        "… and 4 pending, 2 completed",
    ]
    assert fitted(rows_of(REVIEW), 9) == rows_of(REVIEW)
    assert len(fitted(rows_of(REVIEW), 0)) == 2


def shown(
    run: Run, width: int, room: int = 50, inner: Mapping[str, Run] | None = None
) -> list[str]:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=False)
    console.print(drawn(run, inner or {}, width=width, room=room))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("width", [12, 20, 44, 64, 84, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    long = run_of("failed", **{"a" * 100: "failed", "b": f"running, {'a' * 100}"})
    lines = shown(long, width)
    assert len(lines) == 4
    assert max(map(len, lines)) <= width
    # What went wrong is said before who did it, and both before the name is cut below 20.
    assert ("failed" in lines[2]) == ("no luck" in lines[2]) == (width >= 44)
    assert ("adder" in lines[3]) == (width >= 84)


def test_the_bar_counts_the_tasks_of_all_depths() -> None:
    run = run_of(a="completed", block="waiting, a")
    inner = {"id of block": run_of(x="completed", y="running")}
    head, bar, *rest = shown(run, 80, inner=inner)
    assert "2/4" in head
    assert set(bar) <= set("━╸╺")
    assert [line.split()[0] for line in rest] == ["✔", "·", "┆", "┆"]


class Terminal(io.StringIO):
    """Stands for a terminal whose size a test changes."""


def test_a_terminal_of_another_size_is_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "30")
    with LiveTree(stream) as view:
        view.show(REVIEW)
        wide = len(stream.getvalue())
        assert "\x1b[2J" not in stream.getvalue()
        view._console._environ = {"COLUMNS": "30", "LINES": "6"}
        view._console._width, view._console._height = 30, 6
        view.show(REVIEW)
        narrow = stream.getvalue()[wide:]
    assert "\x1b[2J\x1b[H" in narrow
    plain = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in narrow.splitlines()]
    assert max(len(line.strip("\r")) for line in plain) <= 30
    assert any("… and 5 pending" in line for line in plain)


def test_lines_name_tasks_of_blocks_by_their_way() -> None:
    stream = io.StringIO()
    view = Lines(stream)
    view.show(run_of(block="waiting"), {"id of block": run_of(x="running")})
    said = [line.split(maxsplit=1)[1] for line in stream.getvalue().splitlines()]
    assert said == ["waiting    block", "running    block.x on adder"]


def test_names_cannot_move_the_cursor() -> None:
    evil = run_of(**{"a\x1b[2Jb": "running"})
    assert not any("\x1b" in line for line in shown(evil, 80))
