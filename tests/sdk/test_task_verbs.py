"""Commands about single tasks, against a platform in memory with an agent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from opscore_sdk import Agent, TaskError
from opscore_sdk.cli import main
from opscore_sdk.testing import MemoryPlatform, running


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryPlatform]:
    platform = MemoryPlatform()
    with platform.serve() as url:
        monkeypatch.setenv("OPSCORE_API_URL", url)
        monkeypatch.setenv("OPSCORE_API_KEY", platform.key)
        yield platform


@pytest.fixture
def opscore(platform: MemoryPlatform, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command in this process: gives status, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        return (status, *capsys.readouterr())

    return run


def shouter() -> Agent:
    agent = Agent("shouter")

    @agent.task("shout")
    def shout(inputs: dict[str, Any]) -> dict[str, Any]:
        if "text" not in inputs:
            raise TaskError("no_text", "there is nothing to shout", retryable=False)
        return {"text": inputs["text"].upper(), "n": inputs.get("n")}

    return agent


def test_a_task_is_submitted_and_waited_for(opscore: Any, platform: MemoryPlatform) -> None:
    with running(shouter(), platform):
        arguments = ["--input", "text=hi", "--input-json", "n=2", "--wait"]
        status, stdout, stderr = opscore("submit", "shout", *arguments)
        assert (status, json.loads(stdout)) == (0, {"text": "HI", "n": 2}), stderr
        status, stdout, _ = opscore("submit", "shout", "--wait", "--json")
        assert (status, json.loads(stdout)["status"]) == (1, "failed")
        assert opscore("submit", "shout", "--wait", "--input", "no")[0] == 2


def test_tasks_are_listed_and_cancelled(opscore: Any) -> None:
    assert opscore("tasks") == (0, "There are no such tasks.\n", "")
    wishes = ["--priority", "7", "--fairness-key", "ann", "--require", "gpu"]
    status, stdout, _ = opscore("submit", "shout", *wishes, "--json")
    task = json.loads(stdout)
    assert (status, task["priority"]) == (0, 7)
    said = opscore("submit", "shout")[1]
    assert said.startswith("task ")
    assert "; see: opscore why " in said
    listed = json.loads(opscore("tasks", "--capability", "shout", "--json")[1])
    assert len(listed) == 2
    assert "shout" in opscore("tasks", "--status", "queued,waiting,ready,pending")[1]
    status, stdout, _ = opscore("cancel", task["id"])
    assert (status, stdout.split()) == (0, [task["id"], "cancelled"])
    second = next(row for row in listed if row["id"] != task["id"])
    assert opscore("cancel", second["run_id"])[1].split()[0] == second["run_id"]
    assert opscore("cancel", "nope")[0] == 3
