"""The examples of agents at a live platform."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

from opscore import keys
from opscore.config import ROOT
from opscore.models import Project
from opscore_sdk import Client
from tests.live_server import Server
from tests.sdk.test_conformance import command as command

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.timeout(120)
def test_an_example_does_tasks_and_signs_off(
    server: Server, client: Client, command: Sequence[str], wait_until: Any
) -> None:
    own = {"OPSCORE_API_URL": server.url, "OPSCORE_API_KEY": server.key, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, env={**os.environ, **own, "OPSCORE_AGENT_NAME": "exclaimer"}
    )
    try:
        text = 'hé "quoted" \\ line\n'
        first = client.submit("exclaim", inputs={"text": text})
        assert client.wait(first.run_id, every_s=0.05, timeout_s=30).status == "completed"
        done = client.task(first.id)
        assert (done.result, done.agent_name) == ({"text": f"{text}!"}, "exclaimer")
        assert [line.text for line in client.logs(first.id)] == ["exclaiming"]
        odd = client.submit("exclaim")
        assert client.wait(odd.run_id, every_s=0.05, timeout_s=30).status == "failed"
        assert (client.task(odd.id).error or {})["type"] == "no_text"
        last = client.submit("exclaim", inputs={"text": "bye", "seconds": 1})
        # Its first log line shows that the claim has reached it.
        wait_until(lambda: client.logs(last.id))
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    assert client.task(last.id).result == {"text": "bye!"}
    assert client.agent("exclaimer").raw["sessions"][0]["end_reason"] == "ended by its executor"


@pytest.mark.timeout(120)
def test_a_key_that_may_only_execute_is_enough_for_a_registered_agent(
    server: Server, client: Client, command: Sequence[str], project: Project
) -> None:
    client.register_agent("exclaimer", "remote", capabilities=["exclaim"])
    _, key = keys.create(project, "executor", ["agent"])
    process = _start(command, server.url, key)
    try:
        task = client.submit("exclaim", inputs={"text": "hello"})
        assert client.wait(task.run_id, every_s=0.05, timeout_s=30).status == "completed"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.timeout(60)
def test_an_agent_that_nobody_registered_ends(
    server: Server, command: Sequence[str], project: Project
) -> None:
    _, key = keys.create(project, "executor", ["agent"])
    process = _start(command, server.url, key)
    try:
        assert process.wait(30) != 0
    finally:
        process.kill()
        process.wait()


def _start(command: Sequence[str], url: str, key: str) -> subprocess.Popen[bytes]:
    own = {"OPSCORE_API_URL": url, "OPSCORE_API_KEY": key, "OPSCORE_AGENT_NAME": "exclaimer"}
    return subprocess.Popen(command, env={**os.environ, **own, "PYTHONPATH": str(ROOT)})
