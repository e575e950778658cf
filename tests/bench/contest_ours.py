"""Ops-Core in the contest, by its public ways: 16 slots, default durability, real workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from opscore.config import ROOT
from tests.bench.contest_celery import steps
from tests.bench.measures import wait_until
from tests.bench.shapes import DAG8, DAG60, Needs, chain, definition, fork

SLOTS = 16
AGENTS = f"""
agents:
  worker:
    kind: worker
    capabilities: [work]
    handlers: tests.bench.handlers
    replicas: {SLOTS}
"""


class Ours:
    """The workloads, each returning its figure; `with Ours(folder) as ours:` runs a platform."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()

    def __enter__(self) -> Ours:
        from django.core.management import call_command

        from agents.models import Agent
        from opscore.models import Project

        call_command("migrate", verbosity=0)
        self.project = Project.objects.get(slug="default")
        specs = self._folder / "agents.yaml"
        specs.write_text(AGENTS)
        env = {
            **os.environ,
            "OPSCORE_VAR_DIR": str(self._folder),
            "OPSCORE_AGENTS_FILE": str(specs),
        }
        beat = ["-m", "celery", "-A", "opscore", "beat", "--pidfile=", "-l", "ERROR"]
        for command in (["manage.py", "supervise"], [*beat, f"--schedule={self._folder}/beat"]):
            self._stack.enter_context(_running(command, env, self._folder / "ours.log"))
        wait_until(lambda: Agent.objects.filter(status="active").count() > SLOTS, 60)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # ---------------------------------------------------------------- workloads
    def w1(self, count: int) -> float:
        """Return tasks a second, submitted one by one."""
        from tasks.submission import submit_task

        began = time.time()
        return self._rate(began, [submit_task(self.project, _node()).id for _ in range(count)])

    def w1_bulk(self, count: int) -> float:
        """Return tasks a second, submitted a thousand at a time."""
        from tasks.submission import Single, submit_tasks

        began, ids = time.time(), []
        for first in range(0, count, 1000):
            some = [Single(_node())] * min(1000, count - first)
            ids += [made.id for made in submit_tasks(self.project, some)]
        return self._rate(began, ids)

    def _rate(self, began: float, ids: Sequence[Any]) -> float:
        from django.db.models import Max

        from tasks.models import Task

        tasks = Task.objects.filter(pk__in=ids)
        wait_until(lambda: not tasks.exclude(status="completed").exists(), 120, every_s=0.05)
        # Their own times: who asks more often would take a core from what is measured.
        last = tasks.aggregate(last=Max("completed_at"))["last"].timestamp()
        return len(ids) / (last - began)

    def w2(self, count: int) -> list[float]:
        """Return ms from the call to the start of the work, on an idle system."""
        from tasks.models import Task
        from tasks.submission import submit_task

        found = []
        for _ in range(count):
            time.sleep(0.05)
            began = time.time()
            row = Task.objects.filter(pk=submit_task(self.project, _node()).id, status="completed")
            result = wait_until(lambda: row.values_list("result", flat=True).first())  # noqa: B023
            found.append((result["began"] - began) * 1000)
        return found

    def w3(self, length: int) -> float:
        """Return ms a step of a chain."""
        return self._took(chain(length)) * 1000 / length

    def w4(self, width: int) -> float:
        """Return seconds of 1 -> width -> 1."""
        return self._took(fork(width))

    def w5(self, took_ms: Sequence[int] | None) -> float:
        """Return seconds of the irregular graph."""
        return self._took(DAG60, took_ms)

    def w6(self, runs: int) -> float:
        """Return runs a second of the graph of eight, all at once."""
        from workflows import registry

        name = self._uploaded(DAG8)
        began = time.time()
        ids = [registry.execute(self.project, name, inputs={}).id for _ in range(runs)]
        return runs / (self._last_end(ids) - began)

    def w7(self) -> float:
        """Return MiB of private memory of one worker that is idle."""
        from agents.models import AgentSession

        pids = AgentSession.objects.filter(ended_at=None, agent__spec="worker")
        sizes = [
            psutil.Process(pid).memory_full_info().uss for pid in pids.values_list("pid", flat=True)
        ]
        return sorted(sizes)[len(sizes) // 2] / 2**20

    def w8(self, log: Path) -> float:
        """Return seconds from SIGKILL of the worker of a chain to its next step."""
        from agents.models import AgentSession
        from tasks.models import Task
        from workflows import registry

        name = self._uploaded(chain(40), [100] * 40, log=str(log))
        run = registry.execute(self.project, name, inputs={})
        wait_until(lambda: steps(log) >= 15, 60)
        now = Task.objects.filter(run=run, status="running").exclude(session_id=None)
        session = wait_until(lambda: now.values_list("session_id", flat=True).first())
        os.kill(AgentSession.objects.get(pk=session).pid, signal.SIGKILL)
        killed, seen = time.time(), steps(log)
        wait_until(lambda: steps(log) > seen, 60)
        self._last_end([run.id])
        repeated = steps(log) - 40
        assert repeated <= 1, "a step that had been committed was repeated"
        return float(log.read_text().splitlines()[seen]) - killed

    # ---------------------------------------------------------------- runs
    def _uploaded(self, needs: Needs, took_ms: Sequence[int] | None = None, log: str = "") -> str:
        from workflows import registry
        from workflows.definition import from_data

        name = f"contest-{len(needs)}-{bool(took_ms)}".lower()
        made = definition(name, needs, took_ms)
        for task in made["tasks"].values():
            task["with"] |= {"log": log} if log else {}
        registry.upload(self.project, from_data(made))
        return name

    def _took(self, needs: Needs, took_ms: Sequence[int] | None = None) -> float:
        from workflows import registry

        name = self._uploaded(needs, took_ms)
        began = time.time()
        return self._last_end([registry.execute(self.project, name, inputs={}).id]) - began

    def _last_end(self, ids: Sequence[Any]) -> float:
        from django.db.models import Max

        from tasks.models import Run

        runs = Run.objects.filter(pk__in=ids)
        wait_until(lambda: not runs.filter(completed_at=None).exists(), 120, every_s=0.02)
        assert set(runs.values_list("status", flat=True)) == {"completed"}
        return float(runs.aggregate(last=Max("completed_at"))["last"].timestamp())


def _node() -> Any:
    from tasks.graph import Node

    return Node("task", "work", inputs={"ms": 0})


@contextmanager
def _running(command: Sequence[str], env: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=env, stdout=file, stderr=file
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
