"""A supervisor with its agents, and a beat: real processes on real services."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from agents.models import Agent, AgentSession
from opscore.config import ROOT
from opscore.models import Project
from tasks.models import Run
from tests.conftest import WaitUntil

SPECS = """
agents:
  worker:
    kind: worker
    handlers: tests.real.handlers
    capabilities: [{capabilities}]
    replicas: {replicas}
"""


@dataclass
class Cluster:
    """Started by `start`, ended by `stop`; leaves no process behind."""

    folder: Path
    project: Project
    wait_until: WaitUntil
    env: dict[str, str] = field(default_factory=dict)
    replicas: int = 2
    capabilities: str = "work, flaky, poison, forever"
    specs: str = SPECS
    parts: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self) -> None:
        specs = self.folder / "agents.yaml"
        specs.write_text(self.specs.format(replicas=self.replicas, capabilities=self.capabilities))
        self.env = {
            **os.environ,
            "OPSCORE_VAR_DIR": str(self.folder / "var"),
            "OPSCORE_AGENTS_FILE": str(specs),
            "OPSCORE_NODE_NAME": "cluster",
            "OPSCORE_HINT_STALE_S": "2",
            "OPSCORE_DRAIN_S": "5",
            **self.env,
        }
        self._start("supervisor", [sys.executable, "manage.py", "supervise"])
        beat = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "opscore",
            "beat",
            "--pidfile=",
            "-l",
            "WARNING",
        ]
        self._start("beat", [*beat, f"--schedule={self.folder}/beat"])
        self.wait_until(lambda: self.active() >= self.replicas + 1, 40)

    def active(self) -> int:
        return Agent.objects.filter(status="active").count()

    def stop(self) -> None:
        for part in reversed(self.parts.values()):
            part.send_signal(signal.SIGTERM)
        for part in self.parts.values():
            try:
                part.wait(20)
            except subprocess.TimeoutExpired:
                part.kill()
                part.wait()

    def logs(self) -> str:
        files = [*self.folder.glob("*.log"), *self.folder.glob("var/log/**/*.log")]
        return "\n".join(f"--- {file.name}\n{file.read_text()[-4000:]}" for file in files)

    def submit(self, shape: str, *, record: Path | None = None, gate: Path | None = None) -> Run:
        """Start a graph from a process of its own, which talks to the cluster's broker."""
        order = {"shape": shape, "record": record and str(record), "gate": gate and str(gate)}
        return self.submit_all([order])[0]

    def submit_all(self, orders: Sequence[Mapping[str, object]]) -> list[Run]:
        """Start several graphs, one after the other; see `tests.real.submit`."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.real.submit", json.dumps(orders)],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [Run.objects.get(id=UUID(word)) for word in done.stdout.split()[-len(orders) :]]

    def finished(self, run: Run, timeout_s: float = 30) -> Run:
        def ended() -> bool:
            for name, part in self.parts.items():
                assert part.poll() is None, f"{name} has ended:\n{self.logs()}"
            run.refresh_from_db()
            return run.completed_at is not None

        self.wait_until(ended, timeout_s)
        return run

    def pid_of_holder(self, run: Run, key: str) -> int:
        """Return the process that runs a task, once one does."""

        def pid() -> int | None:
            task = run.tasks.get(key=key)
            if task.status != "running" or task.session_id is None:
                return None
            return AgentSession.objects.get(id=task.session_id).pid

        found = self.wait_until(pid, 20)
        assert found is not None
        return found

    def _start(self, name: str, command: Sequence[str]) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            self.parts[name] = subprocess.Popen(
                command, cwd=ROOT, env=self.env, stdout=log, stderr=subprocess.STDOUT
            )
