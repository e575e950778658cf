"""The agents of kind `process`: programs that a host starts, with nothing but their environment."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agents import programs, specs
from examples.repo_review.ranking import rank_files
from opscore.config import ROOT
from opscore_sdk.testing import MemoryPlatform
from tests.examples.conftest import Workshop
from tests.examples.test_ranking import review

FILE = ROOT / "examples" / "agents.yaml"


@contextmanager
def started(name: str, platform: MemoryPlatform) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program as its host does."""
    spec = specs.load(FILE)[name]
    assert spec.kind == "process"
    with platform.serve() as url:
        own = {"OPSCORE_API_URL": url, "OPSCORE_API_KEY": platform.key, "OPSCORE_AGENT_NAME": name}
        env = programs.environment(spec.python, {"PYTHONSAFEPATH": "1", **spec.env, **own})
        with subprocess.Popen(spec.command, cwd=spec.cwd, env=env) as process:
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0


def test_librarian_answers_and_logs_to_its_task(shop: Workshop) -> None:
    platform = MemoryPlatform()
    client = platform.client()
    task = client.submit("dependencies", inputs={"root": str(shop.root)})
    with started("librarian", platform):
        assert client.wait(task.run_id, timeout_s=30).status == "completed"
    found = review(shop)["dependencies"]
    assert client.task(task.id).result == found
    assert "0 dependencies declared" in "".join(line.text for line in client.logs(task.id))


def test_librarian_does_not_try_a_folder_without_repository_again(tmp_path: Path) -> None:
    platform = MemoryPlatform()
    client = platform.client()
    task = client.submit("dependencies", inputs={"root": str(tmp_path)})
    with started("librarian", platform):
        assert client.wait(task.run_id, timeout_s=30).status == "failed"
    error = client.task(task.id).error or {}
    assert (error["type"], error["retryable"]) == ("bad_repository", False)
    assert "is not inside a git repository" in error["message"]


def test_analyst_finds_what_the_function_finds(shop: Workshop) -> None:
    facts = review(shop)
    platform = MemoryPlatform()
    client = platform.client()
    inputs = {name: facts[name] for name in ("history", "metrics", "lint", "tests", "owners")}
    task = client.submit("ranking", inputs=inputs)
    with started("analyst", platform):
        assert client.wait(task.run_id, timeout_s=30).status == "completed"
    assert client.task(task.id).result == rank_files(**inputs)
