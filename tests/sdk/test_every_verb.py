"""Every command of the parser: help, JSON, and what becomes of an id that nobody knows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from opscore.config import ROOT
from opscore_sdk.cli import main
from opscore_sdk.commands import parser
from opscore_sdk.completion import Word, words
from opscore_sdk.statuses import MEANINGS, TABLE
from tests.sdk.conftest import Stub

EVERY = [word for word in words() if word.path]
IDS = [" ".join(word.path) for word in EVERY]
LISTED = [
    *("run", "validate", "graph", "apply", "agents", "tasks", "runs", "logs", "why", "approve"),
    *("signal", "cancel", "pause", "resume", "rerun", "schedules", "keys", "audit", "doctor"),
]
#: What a command needs beside its name.
ARGUMENTS: dict[str, list[str]] = {
    "run": ["file.yaml"],
    "validate": ["file.yaml"],
    "apply": ["file.yaml"],
    "graph": ["nothing"],
    "watch": ["nothing"],
    "runs watch": ["nothing"],
    "status": ["nothing"],
    "signal": ["nothing", "name"],
    "submit": ["add"],
    "send": ["nothing", "1", "--agent", "x"],
    "logs": ["nothing"],
    "agents": ["nothing"],
    "hosts": ["--forget", "nothing"],
    "agent": ["pause", "nothing"],
    "scale": ["spec", "1", "--host", "nothing"],
    "breaker": ["close", "nothing"],
    "schedule": ["show", "nothing"],
    "key": ["revoke", "nothing"],
    "secret": ["nothing", "--delete"],
    "webhook": ["test", "nothing"],
    "redeliver": ["nothing", "1"],
    "events": ["--agent", "nothing"],
    "tasks": [],
    "route": ["nothing"],
}
#: Commands about nothing that is named.
UNNAMED = {"doctor", "completion"}


def test_all_commands_that_were_promised_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(LISTED) <= {word.path[0] for word in EVERY}
    assert {("runs", "watch"), ("audit", "verify")} <= {word.path for word in EVERY}
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    for word in EVERY:
        if len(word.path) == 1:
            assert f"\n  {word.path[0]} " in shown
    assert "complete-names" not in shown
    assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize("word", EVERY, ids=IDS)
def test_help_says_what_it_is_for_and_how_it_ends(
    word: Word, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*word.path, "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"usage: opscore {' '.join(word.path)} " in shown
    assert "--json" in shown
    assert MEANINGS in shown


def needed(word: Word) -> list[str]:
    given = ARGUMENTS.get(" ".join(word.path))
    if given is not None:
        return given
    return ["nothing"] if word.named or "TASK" in usage(word) or "ID" in usage(word) else []


def usage(word: Word) -> str:
    found: Any = parser()
    for name in word.path:
        [adder] = [action for action in found._actions if hasattr(action, "_name_parser_map")]
        found = adder.choices[name]
    text: str = found.format_usage()
    return text


def asked() -> Iterator[Any]:
    for word, name in zip(EVERY, IDS, strict=True):
        if word.path[0] not in UNNAMED:
            yield pytest.param(word, id=name)


@pytest.mark.parametrize("word", list(asked()))
def test_what_nobody_knows_is_a_sentence_and_a_status(
    word: Word,
    stub: Stub,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPSCORE_API_URL", stub.url)
    monkeypatch.setenv("OPSCORE_API_KEY", "k")
    (tmp_path / "file.yaml").write_text("name: x\n")
    arguments = [*word.path, *needed(word)]
    status = main([*arguments, "--json"])
    told = capsys.readouterr()
    assert status == 3, told
    assert "Traceback" not in told.err
    [line] = [line for line in told.err.splitlines() if line]
    assert line.startswith("opscore: ")
    assert json.loads(told.out)["status"] == 404


@pytest.mark.parametrize("word", list(asked()))
def test_a_platform_that_is_away_is_a_sentence_and_a_status(
    word: Word,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.yaml").write_text("name: x\n")
    assert main([*word.path, *needed(word)]) == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert "OPSCORE_API_URL is not set" in told.err


def test_the_page_about_the_command_has_the_same_table() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    for status, meaning in TABLE.items():
        assert f"| {status} | {meaning} |" in page
    for word in EVERY:
        assert f"`{' '.join(word.path)}`" in page or f"`opscore {' '.join(word.path)}" in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["statsu"], "unknown COMMAND 'statsu'; did you mean 'status'?"),
        (["runs", "wach"], "unknown [WORD] 'wach'; did you mean 'watch'?"),
        (["runs", "--limit", "0"], "'0' is no number from 1 on"),
        (["keys", "--limit", "-3"], "'-3' is no number from 1 on"),
        (["completion", "csh"], "unknown shell 'csh'; "),
        (["webhook", "create", "x", "--events=*"], "usage: opscore webhook "),
        (["webhook", "create", "x", "--events=*"], "--events=*; did you mean --event?"),
        (["runs", "watch", "r", "s"], "usage: opscore runs watch "),
    ],
)
def test_wrong_usage_names_the_nearest_word(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_json_counts_before_and_behind_a_second_word() -> None:
    for said in (["runs", "--json", "watch", "r"], ["runs", "watch", "r", "--json"]):
        assert parser().parse_args(said).json
    assert not parser().parse_args(["runs", "watch", "r"]).json
