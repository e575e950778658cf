"""Commands about what the agents of a run share."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from opscore_sdk.cli import main
from opscore_sdk.testing import MemoryPlatform


@pytest.fixture
def opscore(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Run the command in this process: `opscore("context", run)` gives status, stdout, stderr."""
    platform = MemoryPlatform()
    with platform.serve() as url:
        monkeypatch.setenv("OPSCORE_API_URL", url)
        monkeypatch.setenv("OPSCORE_API_KEY", platform.key)

        def run(*arguments: str) -> tuple[int, str, str]:
            status = main(arguments)
            return (status, *capsys.readouterr())

        run.platform = platform  # type: ignore[attr-defined]
        yield run


@pytest.fixture
def run(opscore: Any) -> str:
    with opscore.platform.client() as client:
        client.register_agent("ann", "remote", capabilities=["read"])
        return str(client.submit("x").run_id)


def test_the_context_is_shown_and_changed(opscore: Any, run: str) -> None:
    assert opscore("context", run) == (0, "This run shares nothing.\n", "")
    plan = '{"steps": [1]}'
    assert opscore("context", run, "plan", "--set", plan) == (0, "plan version 1\n", "")
    status, _, stderr = opscore("context", run, "plan", "--set", "2", "--if-version", "0")
    assert (status, stderr) == (3, "opscore: The entry 'plan' has version 1.\n")
    assert json.loads(opscore("context", run, "plan")[1]) == {"steps": [1]}
    assert json.loads(opscore("context", run, "plan", "--json")[1])["version"] == 1
    shown = opscore("context", run)[1]
    assert all(word in shown for word in ("plan", "key:memory", "steps"))
    assert opscore("context", run, "plan", "--delete")[0] == 0
    missing = (3, "", "opscore: The run's context has no entry 'plan'.\n")
    assert opscore("context", run, "plan") == missing
    assert opscore("context", run, "plan", "--delete") == missing
    assert "'wibble' is no id of a run;" in opscore("context", "wibble", "plan")[2]


@pytest.mark.parametrize(
    "wrong",
    [
        ["--set", "1"],
        ["k", "--set", "1", "--delete"],
        ["k", "--if-version", "1"],
        ["k", "--set", "NaN"],
        ["k", "--set", "{"],
    ],
)
def test_wrong_usage_is_a_sentence(opscore: Any, run: str, wrong: list[str]) -> None:
    status, stdout, stderr = opscore("context", run, *wrong)
    assert (status, stdout, len(stderr.splitlines())) == (2, "", 1)


def test_messages_are_sent_and_shown(opscore: Any, run: str) -> None:
    assert opscore("messages", run) == (0, "This run has no messages.\n", "")
    to_ann = ["--agent", "ann", "--topic", "hi", "--ttl-s", "60"]
    status, said, _ = opscore("send", run, '{"n": 1}', *to_ann)
    assert (status, said.endswith(" sent\n")) == (0, True)
    assert opscore("send", run, "2", "--capability", "read")[0] == 0
    shown = opscore("messages", run)[1].splitlines()
    assert len(shown) == 3
    assert "any read" in shown[1]
    assert all(word in shown[2] for word in ("ann", "hi", "key:memory", '{"n": 1}'))
    assert len(json.loads(opscore("messages", run, "--json", "--limit", "1")[1])) == 1
    assert opscore("send", run, "2")[0] == 2
    status, _, stderr = opscore("send", run, "2", "--agent", "nobody")
    assert status == 2
    assert "nobody" in stderr


def test_odd_letters_of_a_terminal_are_a_sentence_too(opscore: Any) -> None:
    odd = os.fsdecode(b"\xff")
    for arguments in (["context", odd], ["status", odd], ["send", odd, "1", "--agent", odd]):
        status, stdout, stderr = opscore(*arguments)
        assert (status, stdout) == (3, "")
        assert "Traceback" not in stderr
