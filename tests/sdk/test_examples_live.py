"""The examples of agents at a live platform."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

from opscore.config import ROOT
from opscore_sdk import Client
from tests.live_server import Server
from tests.sdk.test_conformance import command as command

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.timeout(120)
def test_an_example_does_tasks_and_signs_off(
    server: Server, client: Client, command: Sequence[str], wait_until: Any
) -> None:
    own = {"OPSCORE_API_URL": server.url, "OPSCORE_API_KEY": server.key, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env={**os.environ, **own, "OPSCORE_AGENT_NAME": "shouter"})
    try:
        text = 'hé "quoted" \\ line\n'
        first = client.submit("shout", inputs={"text": text})
        assert client.wait(first.run_id, every_s=0.05, timeout_s=30).status == "completed"
        done = client.task(first.id)
        assert (done.result, done.agent_name) == ({"text": f"{text}!"}, "shouter")
        assert [line.text for line in client.logs(first.id)] == ["shouting"]
        odd = client.submit("shout")
        assert client.wait(odd.run_id, every_s=0.05, timeout_s=30).status == "failed"
        assert (client.task(odd.id).error or {})["type"] == "no_text"
        last = client.submit("shout", inputs={"text": "bye", "seconds": 1})
        # Its first log line shows that the claim has reached it.
        wait_until(lambda: client.logs(last.id))
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    assert client.task(last.id).result == {"text": "bye!"}
    assert client.agent("shouter").raw["sessions"][0]["end_reason"] == "ended by its executor"
