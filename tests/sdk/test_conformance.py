"""The trial for executors: the examples pass it, one that is wrong in one thing fails there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from opscore.config import ROOT
from opscore_sdk import ConflictError
from opscore_sdk.conformance import RULES, Rig, Verdict, Wish, certify, rules
from opscore_sdk.conformance.__main__ import main
from opscore_sdk.conformance.rules import Rule

WRONG = str(Path(__file__).with_name("wrong_executor.py"))
EXAMPLES = ROOT / "examples" / "agents"
COMMANDS = {
    "bash": ["bash", str(EXAMPLES / "exclaim.sh")],
    "node": ["node", str(EXAMPLES / "exclaim.mjs")],
    "python": [sys.executable, str(EXAMPLES / "exclaim.py")],
}


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture(params=COMMANDS)
def command(request: pytest.FixtureRequest) -> Sequence[str]:
    """The command of each example; where its program is missing: skipped, in CI a failure."""
    words = COMMANDS[request.param]
    needed = [words[0], *(["curl"] if request.param == "bash" else [])]
    missing = [word for word in needed if not shutil.which(word)]
    if missing:
        said = f"{missing[0]} is not installed: the example in {request.param} was not tried"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(said)
    return words


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_examples_keep_the_protocol(command: Sequence[str]) -> None:
    broken = [verdict for verdict in certify(Wish(command)) if verdict.broken]
    assert broken == []


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_what_the_wrong_executors_are_made_of_keeps_the_protocol() -> None:
    verdicts = list(certify(Wish([sys.executable, WRONG, "nothing"])))
    assert [verdict for verdict in verdicts if verdict.broken] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [rule.name for rule in RULES])
def test_a_wrong_executor_breaks_the_rule(name: str) -> None:
    [verdict] = certify(Wish([sys.executable, WRONG, name]), [name])
    assert verdict.broken


def test_what_ends_its_tasks_at_once_is_judged_too() -> None:
    [verdict] = certify(Wish([sys.executable, WRONG, "hasty"]), ["cancel"])
    assert "ended before it could be cancelled: does `seconds` say" in verdict.broken


def test_odd_bodies_are_no_end_of_the_trial() -> None:
    verdicts = list(certify(Wish([sys.executable, WRONG, "odd"]), ["claims", "heartbeats"]))
    assert [verdict.broken for verdict in verdicts] == ["", ""]


def test_a_trial_that_comes_to_no_end_is_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Rig) -> None:
        raise ConflictError(409, "The task has ended.")

    monkeypatch.setattr(rules, "RULES", (Rule("odd", "is odd", fails), *RULES[-1:]))
    first, last = certify(Wish([sys.executable, WRONG, "nothing"]))
    assert first.broken == "the trial came to no end: ConflictError: The task has ended."
    assert last.broken == ""


def judged(*command: str) -> Verdict:
    """Try the first rule."""
    [verdict] = certify(Wish(command), ["leaves"])
    return verdict


def test_what_is_no_executor_is_told_in_a_sentence() -> None:
    assert (
        "no agent and began no session: it ended with status 3"
        in judged(sys.executable, "-c", "print('oh no'); raise SystemExit(3)").broken
    )
    assert "oh no" in judged(sys.executable, "-c", "print('oh no')").output
    assert judged("/nowhere/agent").broken.startswith("/nowhere/agent cannot be started")


def test_the_command_gives_verdicts_and_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["--rule", "leaves", "--", sys.executable, WRONG]
    assert main(["--json", *wrong, "nothing"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["rule"], said["ok"], said["broken"]) == ("leaves", True, "")
    assert main([*wrong, "leaves"]) == 1
    shown = capsys.readouterr().out
    assert shown.startswith("FAIL leaves ")
    assert "did not end within 5 s" in shown
    assert shown.endswith("It breaks 1 rule.\n")


@pytest.mark.parametrize(
    "arguments", [[], ["--inputs", "{", "--", "x"], ["--inputs", "[]", "x"], ["--rule", "no", "x"]]
)
def test_wrong_usage_ends_with_status_2(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "opscore_sdk.conformance", *arguments]
    done = subprocess.run(command, capture_output=True, env=os.environ, check=False, timeout=30)
    assert (done.returncode, b"Traceback" in done.stderr) == (2, False)
