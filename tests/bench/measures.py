"""What is measured, with Django set up."""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import celery
import psutil
from django.core.management import call_command
from django.db.models import QuerySet

from agents import registry
from agents.models import Agent, AgentSession
from opscore.celery import app
from opscore.models import Project
from tasks.graph import Graph, Node
from tasks.models import Run, Task
from tasks.submission import start_run, submit_task
from tests.engine.dags import chain, diamond, random_graph
from tests.real.cluster import Cluster

REPEATS = 5
T = TypeVar("T")


def measure(folder: Path) -> None:
    """Measure everything once, on two agents."""
    call_command("migrate", verbosity=0)
    project = Project.objects.get(slug="default")
    cluster = Cluster(folder, project, wait_until, replicas=2, capabilities="work")
    cluster.start()
    try:
        _report("raw Celery, chain of 40, ms a step", [_raw_chain(folder) for _ in range(REPEATS)])
        _shape(project, "chain of 40, ms a step", lambda: chain(40))
        _shape(project, "the same with 100 kB of inputs", lambda: chain(40), blob="x" * 100_000)
        _shape(project, "1 -> 100 -> 1, ms a task", lambda: diamond(100))
        _shape(project, "irregular graph of 60, ms a task", lambda: _irregular(60))
        _many(project)
        _spawn(project)
        _memory()
        _report("SIGKILL to the task running again, ms", [_kill(project) for _ in range(REPEATS)])
    finally:
        cluster.stop()


def _irregular(size: int) -> Graph:
    return random_graph(Random(size), size, 0.2)


def _raw_chain(folder: Path) -> float:
    """Send the same chain as plain tasks to the same workers: nothing is durable in it."""
    mark = folder / "mark"
    mark.unlink(missing_ok=True)
    steps = [app.signature("bench.step", immutable=True, queue="default.work") for _ in range(39)]
    last = app.signature("bench.step", (str(mark),), immutable=True, queue="default.work")
    started = time.monotonic()
    celery.chain(*steps, last).apply_async()
    wait_until(mark.exists)
    return (time.monotonic() - started) * 1000 / 40


def _shape(project: Project, title: str, make: Callable[[], Graph], **inputs: Any) -> None:
    _time(project, make(), inputs)  # caches and plans are warm after this
    _report(title, [_time(project, make(), inputs) for _ in range(REPEATS)])


def _time(project: Project, graph: Graph, inputs: dict[str, Any]) -> float:
    run_id = start_run(project, graph, inputs=inputs).id
    # The database keeps the time; a busy poller would take a core from what is measured.
    run = Run.objects.filter(id=run_id, status="completed")
    finished = wait_until(run.first, 60, every_s=0.1)
    assert finished is not None
    assert finished.completed_at is not None
    spent = finished.completed_at - finished.created_at
    return spent.total_seconds() * 1000 / len(graph.vertices)


def _many(project: Project) -> None:
    rates = []
    for _ in range(REPEATS):
        started = time.monotonic()
        ids = [start_run(project, diamond(6), inputs={}).id for _ in range(100)]
        unfinished = Run.objects.filter(id__in=ids, completed_at=None)
        wait_until(partial(_is_empty, unfinished), 120, every_s=0.02)
        rates.append(800 / (time.monotonic() - started))
    _report("100 runs of 8 tasks at once, tasks/s", rates)


def _is_empty(rows: QuerySet[Run]) -> bool:
    return not rows.all().exists()


def _spawn(project: Project) -> None:
    times = []
    for number in range(REPEATS):
        asked = time.monotonic()
        agent, _ = registry.register(project, name=f"extra-{number}", kind="worker", spec="worker")
        wait_until(partial(_is_active, agent))
        times.append((time.monotonic() - asked) * 1000)
    _report("agent asked for to active, ms", times)


def _is_active(agent: Agent) -> bool:
    return Agent.objects.filter(id=agent.id, status="active").exists()


def _memory() -> None:
    pids = AgentSession.objects.filter(ended_at=None).values_list("pid", flat=True)
    sizes = [psutil.Process(pid).memory_full_info().pss / 2**20 for pid in pids if pid]
    _report("memory of a worker agent, MiB PSS", sizes)


def _kill(project: Project) -> float:
    with tempfile.TemporaryDirectory() as folder:
        gate = Path(folder) / "gate"
        node = Node(key="k", capability="work", inputs={"gate": str(gate)})
        row = Task.objects.filter(id=submit_task(project, node).id)
        session_id = wait_until(lambda: row.values_list("session_id", flat=True).get())
        pid = AgentSession.objects.get(id=session_id or "").pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        again = row.filter(status="running").exclude(session_id=session_id)
        wait_until(lambda: again.all().exists())
        spent = time.monotonic() - killed
        gate.touch()
        wait_until(lambda: row.filter(status="completed").exists())
    return spent * 1000


def _report(title: str, values: list[float]) -> None:
    median, low, high = statistics.median(values), min(values), max(values)
    print(f"{title:45} {median:9.2f}   ({low:.2f} to {high:.2f})", flush=True)


def wait_until(condition: Callable[[], T], timeout_s: float = 20.0, every_s: float = 0.002) -> T:
    """Poll a condition; every 2 ms where the polling itself is the clock."""
    give_up_at = time.monotonic() + timeout_s
    while not (answer := condition()):
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"not true after {timeout_s} s")
        time.sleep(every_s)
    return answer
