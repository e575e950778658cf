"""How processes are asked to end: who has a task may finish it, whatever was asked for."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from agents import workload
from agents.supervisor import endings
from agents.supervisor.children import Child, Memory
from agents.supervisor.endings import Endings
from agents.supervisor.nursery import Nursery
from agents.supervisor.records import Wanted
from agents.supervisor.scribe import Roll
from agents.supervisor.wire import Wire

pytestmark = pytest.mark.django_db

DRAIN_S = 30.0


class Rig:
    """One process under `Endings`, with a socket in the place of its zygote."""

    def __init__(self, kind: str) -> None:
        mine, its = socket.socketpair()
        for end in (mine, its):
            end.setblocking(False)
        nursery = Nursery([])
        nursery.wire, self.zygote = Wire(mine), Wire(its)
        self.nursery = nursery
        self.endings = Endings(nursery, DRAIN_S)
        link, self.other = socket.socketpair()
        row = Wanted(
            id=uuid4(),
            name="a-1",
            project_id=1,
            project="default",
            spec="a",
            kind=kind,
            capabilities=[],
            labels=[],
            running=True,
            paused=False,
            generation=1,
            status="active",
            live_session=None,
            is_ready=True,
            claims=0,
            condemned="",
        )
        self.child = Child(row, uuid4(), Wire(link), Roll(Path("a")), [], 0.0, 0.0, ready=True)
        self.tasks = 1

    def step(self, now: float) -> None:
        """Do what one look of the controller does."""
        self.endings.step([self.child], now)
        if self.child.stopping:
            self.endings.enforce(self.child, now)

    def signals(self) -> list[int]:
        return [message["signal"] for message in self.zygote.receive()]

    def close(self) -> None:
        self.nursery.stop()
        for end in (self.zygote, self.child.link, self.other):
            end.close()


@pytest.fixture
def rig(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    rig = Rig(request.param)
    monkeypatch.setattr(
        workload._source, "running", lambda ids: dict.fromkeys(ids, rig.tasks), raising=False
    )
    yield rig
    rig.close()


both = pytest.mark.parametrize("rig", ["worker", "process"], indirect=True)


@both
def test_task_that_takes_longer_than_a_drain_is_not_killed(rig: Rig) -> None:
    rig.endings.drain(rig.child, "recycled after 5 tasks", 0.0)
    told = [signal.SIGTERM] if rig.child.agent.kind == "worker" else []
    for now in (0.0, DRAIN_S - 1, DRAIN_S + 1, 100 * DRAIN_S):
        rig.step(now)
    assert (rig.signals(), rig.child.killed) == (told, False)
    # Asked to end long ago, it needs no close look any more.
    assert endings.is_watched_closely(rig.child, 1.0)
    assert not endings.is_watched_closely(rig.child, 100 * DRAIN_S)


@both
def test_idle_process_that_does_not_heed_its_sigterm_is_killed_in_time(rig: Rig) -> None:
    rig.endings.drain(rig.child, "restart requested", 0.0)
    rig.step(100.0)
    rig.tasks = 0
    rig.step(200.0)
    rig.step(200.0 + DRAIN_S - 1)
    assert rig.signals() == [signal.SIGTERM]
    rig.step(200.0 + DRAIN_S)
    assert rig.signals() == [signal.SIGKILL]
    assert rig.child.killed


@pytest.mark.parametrize("rig", ["worker"], indirect=True)
def test_message_that_becomes_a_task_after_sigterm_is_finished_too(rig: Rig) -> None:
    rig.tasks = 0
    rig.endings.drain(rig.child, "retired", 0.0)
    rig.step(0.0)
    rig.tasks = 1
    rig.step(1.0)
    rig.step(10 * DRAIN_S)
    assert rig.signals() == [signal.SIGTERM]


@both
def test_supervisor_that_stops_waits_no_longer_than_its_drain(rig: Rig) -> None:
    # Also for one that drains already.
    rig.endings.drain(rig.child, "retired", 0.0)
    rig.endings.hurry(rig.child, "its supervisor stopped", 100.0)
    rig.step(100.0 + DRAIN_S - 6)
    early = rig.signals()
    rig.step(100.0 + DRAIN_S - 4)
    late = rig.signals()
    assert early + late == [signal.SIGTERM]
    assert bool(late) == (rig.child.agent.kind == "process")
    rig.step(100.0 + DRAIN_S)
    assert rig.signals() == [signal.SIGKILL]
    assert rig.child.stopping == "retired"
    assert endings.is_watched_closely(replace(rig.child, killed=False), 1000.0)


@pytest.mark.parametrize("rig", ["worker"], indirect=True)
def test_agent_that_should_run_and_does_not_is_due(rig: Rig) -> None:
    memory = Memory(child=rig.child)
    assert not memory.is_due
    memory.look(rig.child.agent)
    assert not memory.is_due
    seen = []
    for child in (replace(rig.child, ready=False), replace(rig.child, stopping="x"), None):
        memory.child = child
        seen.append(memory.is_due)
    assert seen == [True] * 3
    for row in (replace(rig.child.agent, running=False), replace(rig.child.agent, status="error")):
        memory.look(row)
        assert not memory.is_due
