"""Small parts of the supervisor at their edges: nothing there, nobody listening, too long."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from uuid import uuid4

import pytest
from django.db import connection

from agents import transitions, workload
from agents.models import Agent
from agents.specs import Spec
from agents.supervisor import orders, processes
from agents.supervisor.agent import _handlers
from agents.supervisor.children import Child, Memory
from agents.supervisor.controller import Controller
from agents.supervisor.desired import Pause
from agents.supervisor.nursery import Nursery
from agents.supervisor.orders import Order
from agents.supervisor.preload import HopelessError
from agents.supervisor.records import Wanted
from agents.supervisor.wire import Wire
from opscore.config import load_config
from opscore.models import Project
from tests.agents.conftest import HANDLERS


def test_nursery_without_a_zygote_forks_nothing_and_hears_nothing() -> None:
    nursery = Nursery([])
    one, two = socket.socketpair()
    order = Order(session_id=str(uuid4()), agent_id=str(uuid4()), agent="a", host="h")
    assert nursery.fork(order, one) is False
    nursery.signal(order.session_id, 15)
    assert list(nursery.hear()) == []
    nursery.stop()
    one.close()
    two.close()


def test_nursery_kills_a_zygote_that_does_not_end() -> None:
    nursery = Nursery([])
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    nursery._process = sleeper
    nursery.stop(timeout_s=0.2)
    assert sleeper.returncode == -9


def test_wire_says_that_nobody_is_there_any_more() -> None:
    mine, its = socket.socketpair()
    mine.setblocking(False)
    wire = Wire(mine)
    assert (list(wire.receive()), wire.closed) == ([], False)
    its.close()
    assert wire.send({"a": 1}) is False
    assert (list(wire.receive()), wire.closed) == ([], True)
    wire.close()


def test_agent_without_a_process_cannot_have_ended() -> None:
    with pytest.raises(LookupError):
        Memory().ended(0.0, 1)


def test_process_that_ends_by_itself_in_order_has_crashed_all_the_same() -> None:
    agent = Wanted(
        id=uuid4(),
        name="a",
        project_id=1,
        project="default",
        spec="a",
        capabilities=[],
        labels=[],
        running=True,
        paused=False,
        generation=1,
        status="active",
        live_session=None,
        condemned="",
    )
    mine, its = socket.socketpair()
    child = Child(agent, uuid4(), Wire(mine), [], started=0.0, heard=0.0, ready=True)
    ended = Memory(child=child).ended(1.0, 0)
    assert (ended.reason, ended.crashed) == ("it ended by itself with exit code 0", True)
    mine.close()
    its.close()


def test_handlers_of_an_order_are_those_of_its_spec() -> None:
    order = Order(session_id=str(uuid4()), agent_id=str(uuid4()), agent="a", host="h")
    assert _handlers(order) == {}
    command = asdict(Spec("cat", "command", ("x", "y"), command=("cat",), cwd="/"))
    found = _handlers(replace(order, spec=command, capabilities=["y"]))
    assert list(found) == ["y"]
    module = asdict(Spec("echo", "worker", ("echo",), handlers=HANDLERS))
    with pytest.raises(HopelessError, match="registers no handler for ecco"):
        _handlers(replace(order, spec=module, capabilities=["ecco"]))


def test_long_log_makes_room_and_a_missing_one_has_no_lines(tmp_path: Path) -> None:
    path = tmp_path / "log" / "a.log"
    assert orders.last_lines(path) == ""
    orders.rotate(path)
    path.write_bytes(b"x" * (orders.MAX_LOG_BYTES + 1))
    orders.rotate(path)
    assert not path.exists()
    assert path.with_suffix(".log.1").exists()


def test_logs_of_other_projects_lie_apart(tmp_path: Path) -> None:
    assert orders.log_path(tmp_path, "default", "a") == tmp_path / "log/agents/a.log"
    assert orders.log_path(tmp_path, "blue", "a") == tmp_path / "log/agents/blue/a.log"


def test_process_that_was_reaped_by_somebody_else_is_no_error() -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    processes._reap(done.pid)
    processes.kill_group(done.pid)


def test_nobody_counts_tasks_below_the_engine() -> None:
    assert workload._none([uuid4()]) == {}
    assert workload.running([]) == {}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("draining", [False, True])
def test_end_of_a_pause_is_worth_one_look_while_nothing_can_be_started(
    project: Project, draining: bool
) -> None:
    fields = {"spec": "echo", "host": "here", "desired": "running"}
    agent = Agent.objects.create(project=project, name="echo-1", kind="worker", **fields)
    controller = Controller(load_config(), "here", {"echo": Spec("echo", "worker")})
    now = time.monotonic()
    # A zygote that died is not replaced within this test.
    controller._zygote_at = now + 600
    controller.memories[agent.pk] = Memory(pause=Pause(until=now - 1))
    if draining:
        controller.stop()
    controller._tick()
    assert controller._pause_s() > 0
    connection.close()
    controller.selector.close()
    for end in (controller._wake, controller._woken):
        end.close()


@pytest.mark.django_db
def test_change_of_no_agents_changes_nothing(project: Project) -> None:
    assert transitions.change([], "active") == set()
    agent = Agent.objects.create(project=project, name="corner", kind="remote")
    assert transitions.change([agent.id], "draining", reason="asked") == {agent.id}
    assert transitions.change([agent.id], "active") == set()


def test_only_linux_has_process_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_LIBC", None)
    processes.show_name("elsewhere")
    assert os.getpid() > 0
