"""Callbacks of pushed agents: the key of an attempt, what it opens and what not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from opscore.models import Project
from tasks.models import SharedEntry, TaskLog
from tests.conftest import WaitUntil
from tests.push.conftest import PusherProcess, submit
from tests.push.stub import StubAgent

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
MakeAgent = Callable[..., StubAgent]


class Callback:
    """A client with the key of one attempt, as the agent got it."""

    def __init__(self, sent: dict[str, Any]) -> None:
        self.sent = sent
        self.report_url: str = sent["callback"]["url"]
        self.task_url = self.report_url.removesuffix("/report")
        self.root = self.task_url.rsplit("/tasks/", 1)[0]
        self.key: str = sent["callback"]["key"]
        self.fence = {"fence": sent["fence"]}

    def __call__(self, method: str, url: str, body: Any = None, key: str = "") -> int:
        headers = {"Authorization": f"Bearer {key or self.key}"}
        return httpx.request(method, url, json=body, headers=headers, timeout=20).status_code

    def report(self, **said: Any) -> int:
        return self("POST", self.report_url, {**self.fence, "status": "completed", **said})


def test_agent_calls_back_with_the_key_of_its_attempt(
    pusher: PusherProcess, make_agent: MakeAgent, project: Project, wait_until: WaitUntil
) -> None:
    ann = make_agent("ann")
    ann.behaviour = lambda task: (202, {})
    pusher.active("ann")
    task = submit(project)
    wait_until(lambda: ann.received)
    task.refresh_from_db()
    assert task.status == "running"
    call = Callback(ann.received[0])
    lines = {**call.fence, "lines": ["thinking"]}
    assert call("POST", f"{call.task_url}/logs", lines) == 204
    assert call("POST", f"{call.task_url}/heartbeat", call.fence) == 204
    entry = f"{call.root}/runs/{task.run_id}/context/plan"
    assert call("PUT", entry, {"value": 1}) == 201
    assert SharedEntry.objects.get().updated_by == "agent:ann"
    assert call.report(result={"long": "work"}) == 204
    task.refresh_from_db()
    assert (task.status, task.result) == ("completed", {"long": "work"})
    assert TaskLog.objects.get().text == "thinking"
    # It is over: the key is worth nothing any more.
    assert call.report(result="again") == 409
    assert call("POST", f"{call.task_url}/heartbeat", call.fence) == 409
    assert call("PUT", entry, {"value": 2}) == 409


def test_key_of_an_attempt_is_good_for_nothing_else(
    pusher: PusherProcess, make_agent: MakeAgent, project: Project, wait_until: WaitUntil
) -> None:
    ann = make_agent("ann", concurrency=2)
    ann.behaviour = lambda task: (202, {})
    pusher.active("ann")
    other, _ = submit(project), submit(project)
    wait_until(lambda: len(ann.received) == 2)
    call, elsewhere = (Callback(sent) for sent in ann.received)
    report = {**call.fence, "status": "completed"}
    assert call("POST", elsewhere.report_url, report) == 404
    assert call("POST", call.report_url, {**report, "fence": 99}) == 403
    assert call("GET", f"{call.root}/agents") == 403
    assert call("POST", f"{call.root}/tasks", {}) == 403
    foreign = elsewhere if elsewhere.sent["id"] == str(other.id) else call
    mine = call if foreign is elsewhere else elsewhere
    assert mine("GET", f"{call.root}/runs/{other.run_id}/context") == 404
    forged = call.key[:-1] + ("1" if call.key.endswith("0") else "0")
    assert call("POST", call.report_url, report, key=forged) == 401
    assert call.report() == 204
