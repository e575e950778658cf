"""How a run is shown: live on a terminal, as lines elsewhere."""

from __future__ import annotations

import builtins
import io
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from opscore_sdk import report
from opscore_sdk.progress import Lines, follow, opened, seconds, summary
from opscore_sdk.wire import Run

START = datetime(2026, 1, 1, tzinfo=UTC)


def run_of(status: str = "running", error: str = "", **statuses: str) -> Run:
    tasks = [
        {
            "id": key,
            "key": key,
            "status": word.split()[0],
            "attempt": 2 if "again" in word else 1,
            "losses": 2 if "lost" in word else 0,
            "agent": {"id": "1", "name": "adder"} if word != "pending" else None,
            "error": {"message": "no [luck]"} if word.startswith(("failed", "retrying")) else None,
            "started_at": START.isoformat() if word != "pending" else None,
            "completed_at": (START + timedelta(seconds=2)).isoformat(),
        }
        for key, word in statuses.items()
    ]
    return Run.read(
        {
            "id": "1",
            "status": status,
            "workflow": "sum",
            "version": "1",
            "tasks": tasks,
            "created_at": START.isoformat(),
            "completed_at": (START + timedelta(seconds=65)).isoformat(),
            "error": {"message": error} if error else None,
        }
    )


STEPS = [
    run_of(a="running", b="pending"),
    run_of(a="running", b="pending"),
    run_of(a="retrying again", b="pending"),
    run_of(a="completed again", b="running lost"),
    run_of("failed", "b: no luck", a="completed again", b="failed lost"),
]


def test_lines_name_each_change_once() -> None:
    stream = io.StringIO()
    assert follow(STEPS, stream=stream).status == "failed"
    lines = [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()]
    assert lines == [
        "running    a on adder",
        "retrying   a on adder: attempt 2; no [luck]",
        "completed  a on adder in 2.0 s: attempt 2",
        "running    b on adder: lost its agent 2 times",
        "failed     b on adder in 2.0 s: lost its agent 2 times; no [luck]",
        "run failed: 1 of 2 tasks completed in 1 min 5 s: b: no luck",
    ]


def in_line(ahead: int, *held_by: str) -> Run:
    place = {"key": "deploy", "limit": 2, "held_by": list(held_by), "ahead": ahead}
    return replace(run_of("created", a="pending"), waits_for_place=place)


def test_a_run_in_line_says_once_who_comes_before_it() -> None:
    first, later = in_line(3, "r1", "r2"), in_line(0)
    stream = io.StringIO()
    follow([first, first, later, run_of(a="running")], stream=stream)
    lines = [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()]
    said = "waits for the concurrency key 'deploy', 2 at a time"
    assert lines == [
        f"created    {said}; held by r1, r2; 3 more come first",
        f"created    {said}",
        "running    a on adder",
    ]
    stream = io.StringIO()
    follow([first], stream=stream, live=True)
    assert "held by r1, r2" in stream.getvalue()


def test_terminal_gets_a_live_table_that_ends_whole() -> None:
    stream = io.StringIO()
    assert follow(STEPS, stream=stream, live=True) is STEPS[-1]
    text = stream.getvalue()
    assert "\x1b[" in text
    assert "no [luck]" in text
    assert "2/2" in text
    # The cursor is shown again.
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_without_rich_lines_are_shown_and_tables_are_plain(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without_rich(name: str, *rest: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == "rich":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "opscore_sdk.live", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_rich)
    with opened(io.StringIO(), live=True) as view:
        assert isinstance(view, Lines)
    report.run(STEPS[-1], as_json=False)
    assert "a     completed  adder  2.0 s" in capsys.readouterr().out


def test_nothing_to_follow_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing"):
        follow([])


def test_durations_read_well() -> None:
    assert seconds(None, None) == ""
    assert seconds(START, START + timedelta(seconds=1.24)) == "1.2 s"
    assert seconds(START, START + timedelta(seconds=125)) == "2 min 5 s"
    assert summary(run_of("completed", a="completed")).startswith("1 of 1 tasks")
