"""Agents of kind http beside the embedded platform, from registration to result."""

from __future__ import annotations

import signal
from typing import Any

import httpx
import pytest

from tests.boot.test_platform import Up, up
from tests.conftest import WaitUntil
from tests.push.stub import StubAgent, running

__all__ = ["up"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def test_agent_on_this_machine_is_sent_tasks_and_calls_back(up: Up, wait_until: WaitUntil) -> None:
    up.start()
    address = wait_until(up.address, 90)
    headers = {"Authorization": f"Bearer {address['OPSCORE_API_KEY']}"}
    http = httpx.Client(base_url=address["OPSCORE_API_URL"], headers=headers, timeout=20)
    with running(StubAgent()) as ann, http:
        ann.behaviour = lambda task: (202, {})
        wish = {"name": "ann", "kind": "http", "url": ann.url, "capabilities": ["review"]}
        made = http.post("/agents", json=wish)
        assert made.status_code == 201, made.text
        ann.secret = made.json()["secret"]
        task = http.post("/tasks", json={"capability": "review"}).json()
        sent = wait_until(lambda: ann.received, 30)[0]
        assert (sent["id"], ann.forged) == (task["id"], 0)
        report = {"fence": sent["fence"], "status": "completed", "result": "fine"}
        key = {"Authorization": f"Bearer {sent['callback']['key']}"}
        assert httpx.post(sent["callback"]["url"], json=report, headers=key).status_code == 204
        assert http.get(f"/tasks/{task['id']}").json()["result"] == "fine"
        _pusher_that_is_killed_comes_back(up, ann, http, wait_until)
    up.send(signal.SIGTERM)
    wait_until(lambda: up.ended() is not None, 60)
    assert up.processes() == []


def _pusher_that_is_killed_comes_back(
    up: Up, ann: StubAgent, http: httpx.Client, wait_until: WaitUntil
) -> None:
    [process] = up.named("manage.py push")
    process.kill()
    done: dict[str, Any] = {"status": "completed", "result": 1}
    ann.behaviour = lambda task: (200, done)
    path = f"/tasks/{http.post('/tasks', json={'capability': 'review'}).json()['id']}"
    wait_until(lambda: http.get(path).json()["status"] == "completed", 60)
