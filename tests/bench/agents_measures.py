"""What is measured by tests.bench.agents, with Django set up."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import psutil
from django.core.management import call_command

from agents import pools, questions, queues, registry, routes, sessions
from agents.models import Agent, AgentSession, Host
from opscore.config import ROOT, load_config
from opscore.models import Project
from tasks.broker import lengths
from tasks.graph import Graph, Node
from tasks.models import Run, Task
from tasks.reconcile import reconcile
from tasks.submission import start_run
from tests.bench.handlers import CAPABILITIES

HOST = "bench"
SPECS = """
agents:
  echo: {kind: worker, handlers: tests.agents.sample_handlers, capabilities: [echo], replicas: 0}
""" + "".join(
    f"  {word}: {{kind: worker, handlers: tests.bench.handlers, capabilities: [{word}], replicas: 0}}\n"
    for word in CAPABILITIES
)
FLEET = int(os.environ.get("BENCH_FLEET", "300"))
IDLE_S = 60.0
#: Every worker was probed once by then: the first message of a process costs more than those after it.
SETTLE_S = 45.0
BEATING = 500
PROBES = 1000
#: Of each capability; with five of them 100 agents do 10,000 tasks.
TEAM, TEAM_TASKS = 20, 2000
#: Strategy of all five, and how long a task takes, in ms.
BALANCES = (
    ("least_loaded", 0),
    ("least_loaded", 100),
    ("least_loaded", 1000),
    ("round_robin", 0),
    ("round_robin", 100),
)


def measure(folder: Path, parts: Sequence[str] = ()) -> None:
    """Measure the parts, or everything: once, the repeated ones several times."""
    chosen = set(parts) or {"heartbeats", "one", "probes", "together", "idle", "balance"}
    call_command("migrate", verbosity=0)
    project = Project.objects.get(slug="default")
    if "heartbeats" in chosen:
        _heartbeats(project)
    if chosen == {"heartbeats"}:
        return
    with supervisor(folder) as process:
        _wait(lambda: Agent.objects.filter(status="active").count() == 1)
        if "one" in chosen:
            _one(project)
        if "probes" in chosen:
            _probes(process)
        for _ in range(3 if "together" in chosen else 0):
            _together(50)
        if "idle" in chosen:
            _idle(process, FLEET)
        for strategy, took_ms in BALANCES if "balance" in chosen else ():
            _balance(project, strategy, took_ms)


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


def _probes(process: psutil.Process) -> None:
    """Ask one worker often, as a fleet would be asked over time; all sides' CPU counts."""
    _scale(1)
    agent = Agent.objects.get(name="echo-1")
    queue = queues.own(agent.pk)
    parts = [*process.children(recursive=True), *_services()]
    questions.ask([agent.pk] * 20)
    _wait(lambda: lengths([queue])[queue] == 0)
    before, mine = _cpu_s(parts), time.process_time()
    for _ in range(PROBES // 20):
        questions.ask([agent.pk] * 20)
    _wait(lambda: lengths([queue])[queue] == 0)
    spent_s = (_cpu_s(parts) - before + time.process_time() - mine) / PROBES
    config = load_config()
    share = spent_s * FLEET / (config.probe_s * 1.25) * 100
    _print("one probe of a still worker, ms of CPU", *[spent_s * 1000] * 3)
    _print(f"probes of {FLEET} idle agents, % of a core", share, share, share)
    _scale(0)


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
        "services": _services(),
    }
    time.sleep(SETTLE_S)
    before = {name: _cpu_s(processes) for name, processes in parts.items()}
    time.sleep(IDLE_S)
    used = {
        name: (_cpu_s(processes) - before[name]) / IDLE_S * 100 for name, processes in parts.items()
    }
    split = ", ".join(f"{name} {share:.1f}" for name, share in used.items())
    total = sum(used.values())
    _print(f"{count} idle agents, % of a core ({split})", total, total, total)
    _scale(0)


def _balance(project: Project, strategy: str, took_ms: int) -> None:
    """Give equal agents equal tasks, and tell how far the busiest and the idlest are from the mean."""
    for word in CAPABILITIES:
        routes.put(project, word, strategy, {})
        _scale(TEAM, word)
    parts = [(number, word) for number in range(100) for word in CAPABILITIES]
    graph = Graph.of(
        [Node(f"{word}-{number}", word, inputs={"ms": took_ms}) for number, word in parts]
    )
    began = time.monotonic()
    started = [start_run(project, graph, inputs={}).pk for _ in range(TEAM_TASKS // 100)]
    while Run.objects.filter(pk__in=started).exclude(status="completed").exists():
        reconcile()
        time.sleep(0.5)
    took_s = time.monotonic() - began
    done = Counter(
        Task.objects.filter(run__in=started, uses="agent").values_list("capability", "session_id")
    )
    assert sum(done.values()) == TEAM_TASKS * len(CAPABILITIES), done
    assert len(done) == TEAM * len(CAPABILITIES), done
    shares = sorted(count / (TEAM_TASKS / TEAM) * 100 - 100 for count in done.values())
    title = f"{sum(done.values())} tasks of {took_ms} ms over {len(done)} agents, {strategy}"
    title += f", in {took_s:.1f} s: an agent's share, % off the mean"
    _print(title, statistics.median(shares), shares[0], shares[-1])
    for word in CAPABILITIES:
        _scale(0, word)


def _services() -> list[psutil.Process]:
    names = {"postgres", "valkey-server"}
    return [p for p in psutil.Process().children(recursive=True) if p.name() in names]


def _heartbeats(project: Project) -> None:
    """Beat for sessions as one supervisor does for its host; both sides' CPU counts."""
    ids: list[UUID] = []
    for number in range(BEATING):
        agent = Agent.objects.create(project=project, name=f"beat-{number}", kind="worker")
        ids.append(sessions.start(agent, queues=["default.echo"]).pk)
    services = _services()
    sessions.beat(ids)
    before, mine = _cpu_s(services), time.process_time()
    rounds = 40
    for _ in range(rounds):
        sessions.beat(ids)
    spent_s = (_cpu_s(services) - before + time.process_time() - mine) / rounds
    share = spent_s / 5.0 * 100
    _print(f"heartbeats of {BEATING} agents every 5 s, % of a core", share, share, share)
    Agent.objects.filter(pk__in=AgentSession.objects.values("agent_id")).delete()


def _scale(count: int, spec: str = "echo") -> None:
    pools.scale(Host.objects.get(name=HOST), spec, count)
    status = "active" if count else "terminated"
    pool = Agent.objects.filter(spec=spec, name__startswith=f"{spec}-")
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
