"""A thousand leases of a remote agent that dies, reports late, twice, or after a cancel."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any
from uuid import UUID

import pytest

from agents import sessions
from opscore.models import Project
from tasks.graph import Node
from tasks.models import Task
from tasks.submission import submit_task

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
LEASES = 1000
DONE = {"status": "completed", "result": "mine"}
FAILED = {"status": "failed", "error": {"type": "oops", "message": "too late"}}


class Executor:
    """A remote agent that behaves as badly as its random numbers say."""

    def __init__(self, api: Any, agent_id: str) -> None:
        self.api, self.agent_id = api, agent_id
        self.rng = Random(11)
        self.leases = 0
        self.refused: list[int] = []
        """Answers to reports that must be refused."""
        self.accepted: Counter[str] = Counter()
        self.session_id = self.begin()

    def begin(self) -> str:
        made = self.api("POST", f"/agents/{self.agent_id}/sessions", {})
        assert made.status_code == 201
        return str(made.json()["session_id"])

    def claim(self, limit: int) -> list[dict[str, Any]]:
        answer = self.api("POST", f"/sessions/{self.session_id}/claim", {"limit": limit})
        assert answer.status_code == 200, answer.content
        tasks: list[dict[str, Any]] = answer.json()["tasks"]
        self.leases += len(tasks)
        return tasks

    def report(self, task: dict[str, Any], said: dict[str, Any]) -> int:
        body = {"fence": task["fence"], **said}
        return int(self.api("POST", f"/tasks/{task['id']}/report", body).status_code)

    def serve(self, tasks: list[dict[str, Any]]) -> None:
        for task in tasks:
            if self.rng.random() < 0.1:
                self._is_cancelled(task)
            else:
                assert self.report(task, DONE) == 204
                self.accepted[task["id"]] += 1
            if self.rng.random() < 0.3:
                self.refused.append(self.report(task, self.rng.choice([DONE, FAILED])))

    def die(self, tasks: list[dict[str, Any]]) -> None:
        """Lose every lease, and report all the same: before and after others took them."""
        sessions.end([UUID(self.session_id)], "silent")
        self.refused += [self.report(task, DONE) for task in tasks]
        beat = self.api("POST", f"/sessions/{self.session_id}/heartbeat", {"tasks": []})
        self.refused.append(beat.status_code)
        self.session_id = self.begin()
        again = self.claim(len(tasks))
        self.refused += [self.report(task, FAILED) for task in tasks]
        self.serve(again)

    def _is_cancelled(self, task: dict[str, Any]) -> None:
        assert self.api("PUT", f"/tasks/{task['id']}/cancel").status_code == 200
        held = {"tasks": [{"id": task["id"], "fence": task["fence"]}]}
        beat = self.api("POST", f"/sessions/{self.session_id}/heartbeat", held)
        assert beat.json() == {"cancelled": [task["id"]]}
        self.refused.append(self.report(task, DONE))


def test_every_late_or_doubled_report_is_a_conflict(
    api: Any, agent: dict[str, Any], project: Project
) -> None:
    executor = Executor(api, agent["id"])
    while executor.leases < LEASES:
        for _ in range(20):
            submit_task(project, Node(key="one", capability="echo"))
        tasks = executor.claim(20)
        assert len(tasks) == 20
        if executor.rng.random() < 0.3:
            executor.die(tasks)
        else:
            executor.serve(tasks)
    assert len(executor.refused) > 300
    assert set(executor.refused) == {409}
    done = set(map(str, Task.objects.filter(status="completed").values_list("id", flat=True)))
    assert set(executor.accepted) == done
    assert set(executor.accepted.values()) == {1}
    assert set(Task.objects.values_list("status", flat=True)) == {"completed", "cancelled"}
