"""What is measured by tests.bench.agents, with Django set up."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import psutil
from django.core.management import call_command

from agents import pools, registry, sessions
from agents.models import Agent, AgentSession, Host
from opscore.config import ROOT
from opscore.models import Project

HOST = "bench"
SPECS = "agents:\n  echo: {kind: worker, handlers: tests.agents.sample_handlers, capabilities: [echo], replicas: 0}\n"
FLEET = int(os.environ.get("BENCH_FLEET", "300"))
IDLE_S = 30.0
BEATING = 500


def measure(folder: Path) -> None:
    """Measure everything once; the repeated ones several times."""
    call_command("migrate", verbosity=0)
    project = Project.objects.get(slug="default")
    _heartbeats(project)
    with supervisor(folder) as process:
        _wait(lambda: Agent.objects.filter(status="active").count() == 1)
        _one(project)
        for _ in range(3):
            _together(50)
        _idle(process, FLEET)


@contextmanager
def supervisor(folder: Path) -> Iterator[psutil.Process]:
    """Run a supervisor that offers one spec and starts nothing but the platform's agent."""
    file = folder / "agents.yaml"
    file.write_text(SPECS)
    env = {**os.environ, "OPSCORE_VAR_DIR": str(folder / "var"), "OPSCORE_NODE_NAME": HOST}
    env |= {"OPSCORE_AGENTS_FILE": str(file), "OPSCORE_DRAIN_S": "5"}
    command = [sys.executable, "manage.py", "supervise"]
    with subprocess.Popen(command, cwd=ROOT, env=env) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _one(project: Project) -> None:
    times = []
    for number in range(10):
        began = time.monotonic()
        agent, _ = registry.register(project, name=f"one-{number}", kind="worker", spec="echo")
        _wait(lambda agent=agent: Agent.objects.get(pk=agent.pk).status == "active")
        times.append((time.monotonic() - began) * 1000)
        registry.retire(agent)
        _wait(lambda agent=agent: Agent.objects.get(pk=agent.pk).status == "terminated")
    _print("one agent, asked for to active, ms", statistics.median(times), min(times), max(times))


def _together(count: int) -> None:
    began = time.monotonic()
    _scale(count)
    took_s = time.monotonic() - began
    pids = [
        pid
        for pid in AgentSession.objects.filter(ended_at=None, agent__spec="echo").values_list(
            "pid", flat=True
        )
        if pid
    ]
    pss = [psutil.Process(pid).memory_full_info().pss / 2**20 for pid in pids]
    _print(f"{count} agents, asked for to all active, s", took_s, took_s, took_s)
    _print("memory of one of them, MiB PSS", statistics.median(pss), min(pss), max(pss))
    _scale(0)


def _idle(process: psutil.Process, count: int) -> None:
    _scale(count)
    parts = {
        "agents": process.children(recursive=True),
        "controller": [process],
        "services": [
            found
            for found in psutil.process_iter(["name"])
            if found.info["name"] in {"postgres", "valkey-server"}
        ],
    }
    time.sleep(IDLE_S / 3)
    before = {name: _cpu_s(processes) for name, processes in parts.items()}
    time.sleep(IDLE_S)
    used = {
        name: (_cpu_s(processes) - before[name]) / IDLE_S * 100 for name, processes in parts.items()
    }
    split = ", ".join(f"{name} {share:.1f}" for name, share in used.items())
    total = sum(used.values())
    _print(f"{count} idle agents, % of a core ({split})", total, total, total)
    _scale(0)


def _heartbeats(project: Project) -> None:
    """Beat for sessions as one supervisor does for its host; both sides' CPU counts."""
    ids: list[UUID] = []
    for number in range(BEATING):
        agent = Agent.objects.create(project=project, name=f"beat-{number}", kind="worker")
        ids.append(sessions.start(agent, queues=["default.echo"]).pk)
    services = [p for p in psutil.process_iter(["name"]) if p.info["name"] == "postgres"]
    sessions.beat(ids)
    before, mine = _cpu_s(services), time.process_time()
    rounds = 40
    for _ in range(rounds):
        sessions.beat(ids)
    spent_s = (_cpu_s(services) - before + time.process_time() - mine) / rounds
    share = spent_s / 5.0 * 100
    _print(f"heartbeats of {BEATING} agents every 5 s, % of a core", share, share, share)
    Agent.objects.filter(pk__in=AgentSession.objects.values("agent_id")).delete()


def _scale(count: int) -> None:
    pools.scale(Host.objects.get(name=HOST), "echo", count)
    status = "active" if count else "terminated"
    pool = Agent.objects.filter(spec="echo", name__startswith="echo-")
    if count:
        _wait(lambda: pool.filter(status=status).count() == count, 120)
    else:
        _wait(lambda: not pool.exclude(status=status).exists(), 120)


def _cpu_s(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def _wait(condition: object, timeout_s: float = 60.0) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        if time.monotonic() > give_up_at:
            raise TimeoutError(condition)
        time.sleep(0.02)


def _print(title: str, median: float, low: float, high: float) -> None:
    print(f"| {title} | {median:.2f} | {low:.2f} to {high:.2f} |", flush=True)
