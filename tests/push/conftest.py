"""Stub agents, and a real pusher process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agents import endpoints
from agents.models import Agent
from opscore.config import ROOT, load_config
from opscore.models import Project
from tasks.graph import Node
from tasks.models import Task
from tasks.submission import submit_task
from tests.conftest import WaitUntil
from tests.live_server import server, server_url
from tests.push.stub import StubAgent, running

__all__ = ["server", "server_url"]


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow what the embedded platform allows."""
    monkeypatch.setattr(load_config(), "push_networks", "127.0.0.0/8,::1/128")


@pytest.fixture
def make_agent(project: Project, loopback: None) -> Iterator[Callable[..., StubAgent]]:
    """Start stub agents and register them: `make_agent("ann", concurrency=3)`."""
    with ExitStack() as stack:

        def make(name: str, *capabilities: str, **options: Any) -> StubAgent:
            stub = stack.enter_context(running(StubAgent()))
            agent, _ = endpoints.register(
                project,
                name=name,
                kind="http",
                concurrency=options.pop("concurrency", None),
                capabilities=capabilities or ["echo"],
                options={"url": stub.url, **options},
            )
            stub.secret = endpoints.secret_of(agent)
            return stub

        yield make


class PusherProcess:
    """`manage.py push` with the tests' database."""

    def __init__(self, folder: Path, api_url: str, wait: WaitUntil) -> None:
        self.log = folder / "push.log"
        self.wait = wait
        self.env = {
            **os.environ,
            "OPSCORE_PUSH_NETWORKS": "127.0.0.0/8",
            "OPSCORE_PUBLIC_URL": api_url,
            "OPSCORE_DRAIN_S": "2",
        }
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "push"],
                env=self.env,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def start_again(self) -> None:
        self.process = self._start()

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)

    def active(self, *names: str) -> None:
        """Wait until these agents are active."""
        found = Agent.objects.filter(name__in=names, status="active")
        self.wait(lambda: found.count() == len(names), 30)


@pytest.fixture
def pusher(server: Any, tmp_path: Path, wait_until: WaitUntil) -> Iterator[PusherProcess]:
    """A running pusher whose agents report to a live web server."""
    process = PusherProcess(tmp_path, server.url, wait_until)
    yield process
    process.stop()
    print(process.log.read_text()[-6000:])


def submit(project: Project, **fields: Any) -> Task:
    node = {"key": "job", "capability": "echo", "inputs": {"n": 1}, **fields}
    return submit_task(project, Node(**node))


def ended(task: Task) -> bool:
    task.refresh_from_db()
    return task.status in {"completed", "failed", "cancelled"}
