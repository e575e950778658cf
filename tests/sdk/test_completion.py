"""`opscore completion`: the scripts, in the shells themselves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from opscore.config import ROOT
from opscore_sdk.completion import words
from tests.sdk.conftest import Stub
from tests.sdk.test_verbs import agent_of

COMPLETE = """
source ./script
COMP_WORDS=({words})
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_opscore
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def folder(tmp_path: Path, asking: Any) -> Path:
    """A folder with an `opscore` on the path, and the script of bash."""
    done = asking("completion", "bash")
    assert done.returncode == 0, done.stderr
    (tmp_path / "script").write_text(done.stdout)
    command = tmp_path / "bin" / "opscore"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m opscore_sdk "$@"\n')
    command.chmod(0o755)
    return tmp_path


def completed(folder: Path, stub: Stub, *said: str) -> list[str]:
    quoted = " ".join(f"'{word}'" for word in ("opscore", *said))
    env = {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OPSCORE_API_URL": stub.url,
        "OPSCORE_API_KEY": "k",
    }
    done = subprocess.run(
        ["bash", "--norc", "-c", COMPLETE.format(words=quoted)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("said", "offered"),
    [
        (["sta"], ["status"]),
        (["runs", "w"], ["watch"]),
        (["runs", "watch", "--pat"], ["--patience"]),
        (["apply", "--d"], ["--dry-run"]),
        (["audit", ""], ["verify"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["schedule", "pa"], ["pause"]),
        (["agent", "r"], ["register", "resume"]),
        (["graph", "--format", ""], []),
        (["compl"], ["completion"]),
    ],
)
def test_bash_offers_words(folder: Path, stub: Stub, said: list[str], offered: list[str]) -> None:
    stub.on("GET /workflows?limit=200", {"results": [], "next": None})
    found = completed(folder, stub, *said)
    assert [word for word in found if not word.startswith("--") or said[-1]] == offered


def test_bash_offers_the_names_of_agents(folder: Path, stub: Stub) -> None:
    rows = [agent_of("lint-1"), agent_of("lint-2"), agent_of("scan")]
    stub.on("GET /agents?limit=200", {"results": rows, "next": None})
    assert completed(folder, stub, "drain", "lint") == ["lint-1", "lint-2"]
    stub.answers.clear()
    # Nobody reads errors while completing.
    assert completed(folder, stub, "drain", "lint") == []


def test_every_command_is_in_every_script(asking: Any) -> None:
    commands = {word.path[0] for word in words() if word.path}
    assert {"run", "apply", "doctor", "runs", "completion"} <= commands
    assert "complete-names" not in commands
    for shell in ("bash", "zsh", "fish"):
        script = asking("completion", shell).stdout
        assert all(command in script for command in commands), shell
        assert json.loads(asking("completion", shell, "--json").stdout)["script"] + "\n" == script


@pytest.mark.parametrize(
    ("shell", "check"), [("bash", ["bash", "-n"]), ("zsh", ["zsh", "-n"]), ("fish", ["fish", "-n"])]
)
def test_scripts_are_what_their_shell_can_read(
    asking: Any, tmp_path: Path, shell: str, check: list[str]
) -> None:
    script = tmp_path / "script"
    script.write_text(asking("completion", shell).stdout)
    assert script.read_text().count("opscore") > 3
    is_there = shutil.which(shell) is not None
    assert is_there or not os.environ.get("CI"), f"{shell} is not installed"
    if is_there:
        done = subprocess.run([*check, script], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
