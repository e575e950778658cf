"""Small parts of the supervisor at their edges: nothing there, nobody listening, too long."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from django.db import connection

from agents import transitions, workload
from agents.models import Agent
from agents.specs import Spec
from agents.supervisor import orders, processes
from agents.supervisor.agent import _handlers
from agents.supervisor.births import Births
from agents.supervisor.children import Child, Memory
from agents.supervisor.controller import Controller
from agents.supervisor.desired import Pause
from agents.supervisor.nursery import Nursery
from agents.supervisor.orders import Order
from agents.supervisor.preload import HopelessError
from agents.supervisor.records import Wanted, wanted
from agents.supervisor.scribe import Roll
from agents.supervisor.wire import Message, Wire
from opscore.config import load_config
from opscore.models import Event, Project
from tests.agents.conftest import HANDLERS


def test_nursery_without_a_zygote_forks_nothing_and_hears_nothing() -> None:
    nursery = Nursery([])
    one, two = socket.socketpair()
    order = Order(session_id=str(uuid4()), agent_id=str(uuid4()), agent="a", host="h")
    assert nursery.fork(order, one.detach(), two.detach()) is False
    nursery.signal(order.session_id, 15)
    assert list(nursery.hear()) == []
    nursery.flush()
    nursery.stop()


def test_orders_wait_for_a_zygote_that_does_not_read_and_come_whole() -> None:
    nursery, (mine, its) = Nursery([]), socket.socketpair()
    mine.setblocking(False)
    its.setblocking(False)
    nursery.wire, nursery.loaded, zygote = Wire(mine), True, Wire(its)
    order = Order(session_id="", agent_id="", agent="a" * 300, host="h")
    count = 0
    while nursery.takes_orders:
        # A zygote that waits for us in its turn must not be waited for.
        link, output = socket.socketpair()
        nursery.fork(replace(order, session_id=str(count)), link.detach(), output.detach())
        nursery.signal(str(count), 15)
        count += 1
    for _ in range(1000):
        nursery.signal("late", 9)
    heard: list[Message] = []
    while nursery.is_behind or not heard or heard[-1].get("signal") != 9:
        for message in zygote.receive():
            heard.append(message)
            if message["do"] == "fork":
                os.close(zygote.take_fd())
                os.close(zygote.take_fd())
        nursery.flush()
    assert [message["order"]["session_id"] for message in heard if message["do"] == "fork"] == [
        str(number) for number in range(count)
    ]
    while len(heard) < 2 * count + 1000:
        heard += zygote.receive()
    assert {message["session"] for message in heard[-1000:]} == {"late"}
    nursery.stop()
    zygote.close()


def test_orders_that_wait_are_forgotten_with_their_zygote() -> None:
    nursery, (mine, its) = Nursery([]), socket.socketpair()
    mine.setblocking(False)
    nursery.wire = Wire(mine)
    order = Order(session_id="s", agent_id="", agent="a" * 60_000, host="h")
    one, two = socket.socketpair()
    while not nursery.is_behind:
        nursery.fork(order, os.dup(one.fileno()), os.dup(two.fileno()))
    waiting = [fd for _, fds in nursery._orders for fd in fds]
    nursery.stop()
    assert not nursery._orders
    for descriptor in waiting:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    for end in (its, one, two):
        end.close()


def test_agent_for_whom_there_is_no_room_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (400, 400))
    births = Births(None, None, None, 1.0)  # type: ignore[arg-type]
    births.check_room(99)
    with pytest.raises(OSError, match="400 open files") as refused:
        births.check_room(100)
    assert "this host can have 100 agents at once" in (refused.value.strerror or "")


@pytest.mark.django_db
def test_agent_that_is_refused_says_why(project: Project) -> None:
    fields = {"spec": "echo", "host": "here", "status": "terminated"}
    agent = Agent.objects.create(project=project, name="echo-1", kind="worker", **fields)
    births = Births(None, None, None, 1.0)  # type: ignore[arg-type]
    for _ in range(2):
        births.refuse(wanted("here")[agent.pk], OSError(24, "Too many open files"))
    agent.refresh_from_db()
    assert (agent.status, agent.reason) == ("error", "it cannot be started: Too many open files")
    assert Event.objects.filter(kind="agent.error").count() == 1


def test_limit_of_open_files_is_raised_and_taken_back() -> None:
    line = (
        "import resource; from agents.supervisor.processes import allow_open_files as allow; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128)); "
        "print(allow(0), allow(), allow(64), resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    told = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    assert told.stdout.split("\n")[0] == "64 64 128 (64, 128)"


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
        kind="worker",
        capabilities=[],
        labels=[],
        running=True,
        paused=False,
        generation=1,
        status="active",
        live_session=None,
        is_ready=False,
        claims=0,
        condemned="",
    )
    mine, its = socket.socketpair()
    roll = Roll(Path("a.log"))
    child = Child(agent, uuid4(), Wire(mine), roll, [], started=0.0, heard=0.0, ready=True)
    ended = Memory(child=child).ended(1.0, 0)
    assert (ended.reason, ended.crashed) == ("it ended by itself with exit code 0", True)
    mine.close()
    its.close()


def test_handlers_of_an_order_are_those_of_its_spec() -> None:
    order = Order(session_id=str(uuid4()), agent_id=str(uuid4()), agent="a", host="h")
    assert _handlers(order) == {}
    command = Spec("cat", "command", ("x", "y"), command=("cat",), cwd="/").as_dict()
    found = _handlers(replace(order, spec=command, capabilities=["y"]))
    assert list(found) == ["y"]
    module = Spec("echo", "worker", ("echo",), handlers=HANDLERS).as_dict()
    with pytest.raises(HopelessError, match="registers no handler for ecco"):
        _handlers(replace(order, spec=module, capabilities=["ecco"]))


def test_lines_come_from_the_present_log_and_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    assert orders.last_lines(path) == ""
    path.with_suffix(".log.1").write_text("one\ntwo\n")
    path.write_text("three\n\0four\n")
    assert orders.last_lines(path) == "one\ntwo\nthree\nfour"
    assert orders.last_lines(path, 2) == "three\nfour"
    assert orders.last_lines(path, 9, most=8) == "e\nfour"


def test_logs_of_other_projects_lie_apart(tmp_path: Path) -> None:
    assert orders.log_path(tmp_path, "default", "a") == tmp_path / "log/agents/a.log"
    assert orders.log_path(tmp_path, "blue", "a") == tmp_path / "log/agents/blue/a.log"


def test_process_that_was_reaped_by_somebody_else_is_no_error() -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    processes._reap(done.pid)
    processes.kill_group(done.pid)


def test_nobody_counts_tasks_below_the_engine() -> None:
    nothing = workload._Nothing()
    assert nothing.running([uuid4()]) == {}
    assert nothing.oldest_wait(1, ["x"], []) == 0
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
    assert (controller._due_at > now, controller._dirty) == (True, False)
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
