"""What is measured by tests.bench.large, with Django set up; the tests ask for less of the same."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import psutil
from celery import Celery, chain
from celery.canvas import Signature
from django.core.management import call_command
from kombu import Connection
from kombu.transport.memory import Channel

from agents import registry, sessions
from opscore.models import Project
from tasks.canvas import compile_plan
from tasks.claims import poll
from tasks.flow import Flow
from tasks.graph import Graph, Node
from tasks.models import Run
from tasks.reports import complete_claimed
from tasks.segments import Planner
from tasks.submission import start_run
from tests.engine.dags import diamond, random_graph
from tests.engine.test_compiler import Broker, spots_of
from tests.round_trips import round_trips

SIZE = 10_000
MAX_PARALLEL = 16


def measure() -> None:
    """Print every figure once."""
    call_command("migrate", verbosity=0)
    project = Project.objects.get(slug="default")
    start_run(project, diamond(2), inputs={})
    for size in (100, 1_000, SIZE):
        graph = large_graph(size)
        began = time.monotonic()
        with round_trips() as trips:
            start_run(project, graph, inputs={})
        spent = time.monotonic() - began
        print(f"submit of {size:6} tasks: {spent:6.2f} s, {len(trips)} round trips", flush=True)
        bytes_each = message_bytes(graph) / size
        print(f"messages, a task of {size:6}: {bytes_each:8.0f} bytes", flush=True)
    _print_run("random graph", project, large_graph(SIZE))
    _print_run(f"list, {MAX_PARALLEL} at once", project, large_list(SIZE))


def _print_run(title: str, project: Project, graph: Graph) -> None:
    for row in Run.objects.filter(completed_at=None):
        row.delete()
    before, peak_before = memory_mib()
    began = time.monotonic()
    run = finish(project, start_run(project, graph, inputs={}))
    spent = time.monotonic() - began
    after, peak = memory_mib()
    print(
        f"{title}: {run.status} after {spent:.0f} s, {spent * 1000 / SIZE:.1f} ms a task;"
        f" memory grew by {after - before:.0f} MiB, its peak by {peak - peak_before:.0f} MiB",
        flush=True,
    )


def large_graph(size: int) -> Graph:
    """Return a random graph: a task needs 1.8 of the twelve before it."""
    return random_graph(Random(size), size)


def large_list(size: int) -> Graph:
    """Return one for_each task over a list that is known only when it runs."""
    flow = Flow(for_each=[{"path": f"file-{n}"} for n in range(size)], max_parallel=MAX_PARALLEL)
    return Graph.of([Node("each", "work", inputs={"path": "${{ item.path }}"}, flow=flow)])


def finish(project: Project, run: Run) -> Run:
    """Execute a run by polling, sixteen tasks at a time, as a remote agent does."""
    agent = registry.register(project, name="large", kind="remote", capabilities=["work"])[0]
    session = sessions.start(agent)
    while claimed := poll(session.id, MAX_PARALLEL):
        for task in claimed:
            complete_claimed(task, {"ok": True, "path": task.inputs.get("path")})
    sessions.end([session.id], "finished")
    run.refresh_from_db()
    return run


def memory_mib() -> tuple[float, float]:
    """Return the memory of this process, now and at its peak."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return psutil.Process().memory_info().rss / 2**20, peak / 2**10


# ------------------------------------------------------------ bytes of hints
def message_bytes(graph: Graph) -> int:
    """Execute a graph on a broker in memory and return the bytes of everything it carried."""
    broker = Scales(graph, Random(1))
    delivered = broker.run()
    assert len(delivered) == len(graph.vertices)
    return broker.bytes


@dataclass
class Scales(Broker):
    """A broker that weighs what it carries."""

    bytes: int = 0

    def run(self) -> list[int]:
        # The graph does not change: one planner instead of one for each step.
        self.planner = Planner(spots_of(self.graph), chords=self.chords)
        return super().run()

    def advance(self, ready: list[int]) -> None:
        for canvas in compile_plan(self.planner.plan(ready), self.addresses.__getitem__):
            self.bytes += weight(canvas)
            self._start(canvas, _nothing)


def _nothing() -> None:
    pass


def weight(canvas: Any, body: Any = None) -> int:
    """Return the bytes of all messages that one canvas becomes, the last step included."""
    match canvas["task"]:
        case "celery.chain":
            return _chain_weight(list(canvas["kwargs"]["tasks"]), body)
        case "celery.group":
            return sum(weight(part, body) for part in canvas["kwargs"]["tasks"])
        case "celery.chord":
            header, after = canvas["kwargs"]["header"], canvas["kwargs"]["body"]
            parts = header["kwargs"]["tasks"] if isinstance(header, Mapping) else header
            return sum(weight(part, after) for part in parts) + weight(after, body)
        case _:
            return _sent(canvas, body)


def _chain_weight(parts: list[Any], body: Any) -> int:
    """Each step's message carries all steps behind it."""
    total = 0
    for place, part in enumerate(parts):
        if part["task"] != "tasks.run_task":
            return total + weight(part, body)
        rest = parts[place:]
        total += _sent(rest[0] if len(rest) == 1 else chain(*rest), body)
    return total


@cache
def _memory() -> Celery:
    app = Celery(
        "sizes", broker="memory://", backend="cache+memory://", fixups=[], set_as_current=False
    )
    app.conf.update(task_serializer="json", task_ignore_result=True)
    return app


def _sent(canvas: Any, body: Any) -> int:
    """Send what begins with one task and return the bytes that a Redis list would hold."""
    app = _memory()
    # Rebuilt from plain data: a chain sends its head through the app that the head belongs to.
    message = Signature.from_dict(json.loads(json.dumps(canvas)), app=app)
    if body is not None:
        # A step in a chord's header carries the chord's body.
        message.options["chord"] = body
    with Connection("memory://") as connection, app.producer_pool.acquire(block=True) as producer:
        message.apply_async(producer=producer)
        channel = connection.default_channel
        assert isinstance(channel, Channel)
        return sum(len(json.dumps(item)) for item in _drain(channel))


def _drain(channel: Channel) -> Iterator[Any]:
    while channel._size("default.work"):
        yield channel._get("default.work")
