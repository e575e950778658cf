"""An agent whose web server is killed and started again while it works."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest

from opscore import keys
from opscore_sdk import Agent, AsyncClient, Client, Context
from opscore_sdk.testing import running
from tests.live_server import free_port, web_server


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.django_db(transaction=True)
def test_a_result_outlives_the_server_that_handed_out_the_task(project: Any) -> None:
    _, key = keys.create(project, "restart", ["admin"])
    agent, port = Agent("worker"), free_port()
    at_work, go_on = threading.Event(), threading.Event()

    @agent.task("work")
    def work(inputs: Any, context: Context) -> str:
        context.log("before")
        at_work.set()
        assert go_on.wait(120)
        context.log("after")
        return "kept"

    with web_server(port) as (url, first):
        client = Client(url, key)
        with client, running(agent, lambda: AsyncClient(url, key)):
            task = client.submit("work")
            assert at_work.wait(60)
            os.killpg(first.pid, signal.SIGKILL)
            first.wait()
            # Its lines, heartbeats and report meet nobody for as long as the start takes.
            go_on.set()
            with web_server(port):
                assert client.wait(task.run_id, timeout_s=60, patience_s=60).status == "completed"
                done = client.task(task.id)
                assert (done.result, done.attempt, done.losses) == ("kept", 1, 0)
                assert {line.text for line in client.logs(task.id)} == {"before", "after"}
                agent.stop()
