"""A real supervisor with real agents, for one test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from opscore.config import ROOT

if TYPE_CHECKING:
    from agents.models import Agent, AgentSession
    from opscore.models import Project
    from tests.conftest import WaitUntil

HANDLERS = "tests.agents.sample_handlers"


class Host:
    """One supervisor process on a host name of its own."""

    def __init__(self, folder: Path, specs: str, wait: WaitUntil, **environment: str) -> None:
        self.folder = folder
        self.name = environment.get("OPSCORE_NODE_NAME") or f"host-{uuid.uuid4().hex[:8]}"
        self.wait = wait
        self.file = folder / "agents.yaml"
        self.file.write_text(dedent(specs))
        self.environment = {
            **os.environ,
            "OPSCORE_VAR_DIR": str(folder / "var"),
            "OPSCORE_AGENTS_FILE": str(self.file),
            "OPSCORE_NODE_NAME": self.name,
            **environment,
        }
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with (self.folder / "supervise.log").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "supervise"],
                env=self.environment,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def start_again(self) -> None:
        """Start another supervisor for the same host."""
        self.process = self._start()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)

    def agent(self, name: str) -> Agent:
        from agents.models import Agent

        return Agent.objects.get(name=name)

    def status(self, name: str) -> str:
        """Return the agent's status; '' before it is registered."""
        from agents.models import Agent

        return Agent.objects.filter(name=name).values_list("status", flat=True).first() or ""

    def session(self, name: str) -> AgentSession | None:
        """Return the agent's open and ready session."""
        from agents.models import AgentSession

        return AgentSession.objects.filter(
            agent__name=name, ended_at=None, ready_at__isnull=False
        ).first()

    def ready(self, name: str, timeout_s: float = 60.0) -> AgentSession:
        """Wait until the agent has a session that takes work."""
        found = self.wait(lambda: self.session(name), timeout_s)
        assert found is not None
        return found

    def next_session(self, name: str, after: AgentSession, timeout_s: float = 60.0) -> AgentSession:
        """Wait until the agent lives again, in another session."""

        def newer() -> AgentSession | None:
            found = self.session(name)
            return found if found is not None and found.pk != after.pk else None

        found = self.wait(newer, timeout_s)
        assert found is not None
        return found

    def log(self, name: str) -> str:
        path = self.folder / "var" / "log" / "agents" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def descendants(self) -> list[psutil.Process]:
        """Return every process below the supervisor."""
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture
def start_host(
    transactional_db: None, project: Project, tmp_path: Path, wait_until: WaitUntil
) -> Iterator[Callable[..., Host]]:
    """Start supervisors: `start_host("agents: …", OPSCORE_DRAIN_S="2")`."""
    from agents import queues

    # This process may remember queues of an earlier test, whose rows are gone.
    queues.forget()
    hosts: list[Host] = []

    def start(specs: str, **environment: Any) -> Host:
        folder = tmp_path / f"host{len(hosts)}"
        folder.mkdir()
        hosts.append(Host(folder, specs, wait_until, **environment))
        return hosts[-1]

    yield start
    for host in hosts:
        if host.process.poll() is None:
            # One to drain, the other one to be quick about it.
            host.process.send_signal(signal.SIGINT)
            host.stop()
        print((host.folder / "supervise.log").read_text()[-8000:])
