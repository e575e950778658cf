"""`manage.py demo` from outside, with everything real."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from opscore.config import ROOT
from tests.examples.conftest import Workshop

Demo = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def demo(var_dir: Path) -> Demo:
    def run(repo: Path, *options: str) -> subprocess.CompletedProcess[str]:
        env = {name: word for name, word in os.environ.items() if not name.startswith("OPSCORE_")}
        return subprocess.run(
            [sys.executable, "manage.py", "demo", "--repo", str(repo), *options],
            cwd=ROOT,
            env={**env, "OPSCORE_VAR_DIR": str(var_dir)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )

    return run


def left_behind(var_dir: Path) -> list[str]:
    """Return the command lines of processes that still belong to a platform in this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = process.environ().get("OPSCORE_VAR_DIR") == str(var_dir)
            arguments = process.cmdline()
        except psutil.Error:
            continue
        if mine or any(str(var_dir) in word for word in arguments):
            found.append(" ".join(arguments))
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_demo_reviews_a_repository_and_a_killed_agent_changes_nothing(
    shop: Workshop, demo: Demo, var_dir: Path
) -> None:
    first = demo(shop.root)
    assert first.returncode == 0, first.stdout
    report = var_dir / "demo" / "report.md"
    text = report.read_text()
    assert "| 1 | `shop/cart.py` |" in text
    assert "shop/cart.py" in first.stdout
    assert str(report) in first.stdout
    assert left_behind(var_dir) == []

    report.unlink()
    second = demo(shop.root, "--kill")
    assert second.returncode == 0, second.stdout
    assert "*** SIGKILL to agent" in second.stdout
    assert "ran twice: its agent was killed under it" in second.stdout
    assert "(losses: 1, attempt: 1)" in second.stdout
    assert report.read_text() == text
    assert left_behind(var_dir) == []


def test_demo_of_a_path_without_repository_starts_nothing(
    tmp_path: Path, demo: Demo, var_dir: Path
) -> None:
    for path, reason in ((tmp_path, "not inside a git"), (tmp_path / "nowhere", "not a folder")):
        done = demo(path)
        assert done.returncode == 2
        assert reason in done.stdout
        assert "Traceback" not in done.stdout
    assert not (var_dir / "log").exists()
    assert left_behind(var_dir) == []
