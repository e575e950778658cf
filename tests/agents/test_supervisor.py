"""The supervisor with real processes, a real database and a real broker."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from celery import Celery
from django.db import connection
from django.db.models import Max, Min

from agents import queues, registry, sessions
from agents.models import Agent, AgentSession
from agents.queues import ensure
from opscore.celery import app
from opscore.models import Event, Project
from tasks.graph import Node
from tasks.submission import submit_task
from tests.agents.conftest import HANDLERS, Host
from tests.conftest import WaitUntil

StartHost = Callable[..., Host]
ECHO = f"""
agents:
  echo: {{kind: worker, handlers: {HANDLERS}, capabilities: [echo]}}
"""


def touch(path: Path, seconds: float = 0.0, queue: str = "default.echo") -> None:
    app.send_task("tests.touch", args=(str(path), seconds), queue=queue)


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_agents_of_the_file_become_active_and_do_work(
    start_host: StartHost, wait_until: WaitUntil, tmp_path: Path
) -> None:
    host = start_host(ECHO)
    session = host.ready("echo-1")
    host.ready("platform-1")
    assert host.status("echo-1") == "active"
    assert session.queues == ["default.echo", queues.own(session.agent_id)]
    assert psutil.Process(session.pid or 0).is_running()
    touch(tmp_path / "done")
    wait_until(lambda: text(tmp_path / "done") == f"finished {session.pid}")


def test_killed_agent_is_replaced_and_counted(start_host: StartHost) -> None:
    host = start_host(ECHO)
    first = host.ready("echo-1")
    os.kill(first.pid or 0, signal.SIGKILL)
    killed_at = time.monotonic()
    second = host.next_session("echo-1", first)
    print(f"SIGKILL to replacement active: {time.monotonic() - killed_at:.3f} s")
    first.refresh_from_db()
    assert first.end_reason == "it died: SIGKILL"
    assert second.pid != first.pid
    assert host.agent("echo-1").restarts == 1
    kinds = list(
        Event.objects.filter(agent_id=first.agent_id).order_by("id").values_list("kind", flat=True)
    )
    assert kinds[-3:] == ["agent.lost", "agent.restarting", "agent.active"]


def test_programs_of_a_killed_agent_die_with_it(
    start_host: StartHost, wait_until: WaitUntil, tmp_path: Path
) -> None:
    host = start_host(ECHO)
    first = host.ready("echo-1")
    app.send_task("tests.spawn_stray", args=(str(tmp_path / "pid"),), queue="default.echo")
    stray = int(wait_until(lambda: text(tmp_path / "pid")))
    os.kill(first.pid or 0, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(stray))


def test_agent_that_cannot_start_is_given_up_with_its_last_lines(
    start_host: StartHost, wait_until: WaitUntil
) -> None:
    host = start_host(
        f"""
        agents:
          broken: {{kind: worker, handlers: tests.agents.no_such_module, capabilities: [x]}}
          mistaken: {{kind: worker, handlers: {HANDLERS}, capabilities: [ecco]}}
        """
    )
    wait_until(lambda: host.status("broken-1") == "error", 30)
    assert "No module named 'tests.agents.no_such_module'" in host.agent("broken-1").reason
    wait_until(lambda: host.status("mistaken-1") == "error")
    assert "registers no handler for ecco" in host.agent("mistaken-1").reason
    assert not AgentSession.objects.filter(agent__name="broken-1", ended_at=None).exists()


def test_crash_loop_ends_in_error_and_a_restart_tries_again(
    start_host: StartHost, wait_until: WaitUntil, project: Project
) -> None:
    host = start_host(ECHO, OPSCORE_TEST_DIE_AT_START="echo-1")
    wait_until(lambda: host.status("echo-1") == "error", 30)
    agent = host.agent("echo-1")
    assert agent.restarts == 4
    assert "it died: exit code 3" in agent.reason
    assert "cannot go on" in agent.reason
    assert host.status("platform-1") == "active"
    registry.restart(agent)
    wait_until(lambda: host.agent("echo-1").restarts > 4)


def test_stopped_agent_finishes_its_task_first(
    start_host: StartHost, wait_until: WaitUntil, tmp_path: Path
) -> None:
    host = start_host(ECHO)
    host.ready("echo-1")
    touch(tmp_path / "slow", 1.0)
    wait_until(lambda: text(tmp_path / "slow").startswith("started"))
    registry.retire(host.agent("echo-1"), actor="a test")
    wait_until(lambda: host.status("echo-1") == "terminated")
    assert text(tmp_path / "slow").startswith("finished")
    assert host.session("echo-1") is None
    assert host.session("platform-1") is not None


def test_restart_replaces_the_process_after_its_task(
    start_host: StartHost, wait_until: WaitUntil, tmp_path: Path
) -> None:
    host = start_host(ECHO)
    first = host.ready("echo-1")
    touch(tmp_path / "slow", 0.5)
    wait_until(lambda: text(tmp_path / "slow").startswith("started"))
    registry.restart(host.agent("echo-1"), actor="a test")
    second = host.next_session("echo-1", first)
    assert text(tmp_path / "slow") == f"finished {first.pid}"
    assert second.generation == 2
    assert host.agent("echo-1").restarts == 0


def test_condemned_session_is_killed_and_counts_as_no_crash(start_host: StartHost) -> None:
    host = start_host(ECHO)
    first = host.ready("echo-1")
    sessions.condemn([first.pk], "the task took longer than 3 s")
    host.next_session("echo-1", first)
    first.refresh_from_db()
    assert first.end_reason.startswith("the task took longer than 3 s")
    assert host.agent("echo-1").restarts == 0


def test_condemned_command_dies_with_all_that_it_started(
    start_host: StartHost, project: Project, wait_until: WaitUntil, tmp_path: Path
) -> None:
    # One child in the command's process group, one that has left it.
    line = "sleep 300 & echo $! > $PIDS; setsid sleep 300 & echo $! >> $PIDS; echo $$ >> $PIDS; cat"
    host = start_host(
        f"""
        agents:
          sh:
            kind: command
            capabilities: [sh]
            command: [sh, -c, "{line}; sleep 300"]
            env: {{PIDS: {tmp_path / "pids"}}}
        """
    )
    first = host.ready("sh-1")
    submit_task(project, Node(key="task", capability="sh", timeout_s=300))
    wait_until(lambda: text(tmp_path / "pids").count("\n") == 3)
    doomed = [first.pid or 0, *map(int, text(tmp_path / "pids").split())]
    began = time.monotonic()
    assert sessions.condemn([first.pk], "the run was cancelled") == {first.pk}
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in doomed))
    took_s = time.monotonic() - began
    print(f"condemned to gone: {took_s * 1000:.0f} ms")
    assert took_s < 5
    host.next_session("sh-1", first)


def test_process_whose_session_was_ended_is_replaced(start_host: StartHost) -> None:
    host = start_host(ECHO)
    first = host.ready("echo-1")
    sessions.end([first.pk], "ended by somebody")
    host.next_session("echo-1", first)


def test_frozen_agent_is_replaced(start_host: StartHost) -> None:
    host = start_host(ECHO, OPSCORE_SESSION_TTL_S="2")
    first = host.ready("echo-1")
    os.kill(first.pid or 0, signal.SIGSTOP)
    host.next_session("echo-1", first)
    first.refresh_from_db()
    assert first.end_reason == "silent for 2 s"


def test_agent_asked_for_by_name_is_started_at_once(
    start_host: StartHost, project: Project, wait_until: WaitUntil
) -> None:
    host = start_host(ECHO.replace("capabilities: [echo]", "capabilities: [echo], replicas: 0"))
    host.ready("platform-1")
    assert Agent.objects.filter(host=host.name).count() == 1
    asked_at = time.monotonic()
    agent, created = registry.register(project, name="mine", kind="worker", spec="echo")
    host.ready("mine")
    print(f"request to active: {(time.monotonic() - asked_at) * 1000:.0f} ms")
    assert created
    assert agent.capabilities == ["echo"]


def test_running_agent_takes_up_a_queue_that_appears(
    start_host: StartHost, project: Project, wait_until: WaitUntil, tmp_path: Path
) -> None:
    host = start_host(ECHO.replace("[echo]", "[echo], labels: [gpu, eu]"))
    host.ready("echo-1")
    name = ensure(project, "echo", ["gpu"])
    other = ensure(project, "echo", ["tpu"])
    wait_until(lambda: name in (host.ready("echo-1").queues))
    touch(tmp_path / "done", queue=name)
    wait_until(lambda: text(tmp_path / "done").startswith("finished"))
    assert other not in host.ready("echo-1").queues


def test_sigterm_drains_and_leaves_nothing_behind(
    start_host: StartHost, wait_until: WaitUntil, tmp_path: Path
) -> None:
    host = start_host(ECHO)
    host.ready("echo-1")
    below = host.descendants()
    touch(tmp_path / "slow", 1.0)
    wait_until(lambda: text(tmp_path / "slow").startswith("started"))
    assert host.stop() == 0
    assert text(tmp_path / "slow").startswith("finished")
    assert {agent.status for agent in Agent.objects.all()} == {"terminated"}
    assert not AgentSession.objects.filter(ended_at=None).exists()
    assert psutil.wait_procs(below, timeout=5)[1] == []


def test_agent_that_drains_already_is_not_hurried_when_its_supervisor_stops(
    start_host: StartHost, wait_until: WaitUntil, tmp_path: Path
) -> None:
    host = start_host(ECHO)
    session = host.ready("echo-1")
    touch(tmp_path / "slow", 1.5)
    wait_until(lambda: text(tmp_path / "slow").startswith("started"))
    registry.retire(host.agent("echo-1"))
    wait_until(lambda: host.status("echo-1") == "draining")
    assert host.stop() == 0
    assert text(tmp_path / "slow").startswith("finished")
    session.refresh_from_db()
    assert session.end_reason == "retired"


def test_database_without_tables_is_said_in_a_sentence(start_host: StartHost) -> None:
    empty = urlsplit(os.environ["OPSCORE_DATABASE_URL"])._replace(path="/postgres").geturl()
    host = start_host(ECHO, OPSCORE_DATABASE_URL=empty)
    assert host.process.wait(60) == 1
    output = (host.folder / "supervise.log").read_text()
    assert "The database has no tables yet; run: python manage.py migrate" in output
    assert "Traceback" not in output


def test_agent_that_does_not_finish_in_time_is_killed(
    start_host: StartHost, wait_until: WaitUntil, tmp_path: Path
) -> None:
    host = start_host(ECHO, OPSCORE_DRAIN_S="0.5")
    session = host.ready("echo-1")
    touch(tmp_path / "slow", 60.0)
    wait_until(lambda: text(tmp_path / "slow").startswith("started"))
    assert host.stop() == 0
    session.refresh_from_db()
    assert session.end_reason == "its supervisor stopped (SIGKILL)"


def test_second_sigterm_stops_at_once(
    start_host: StartHost, wait_until: WaitUntil, tmp_path: Path
) -> None:
    host = start_host(ECHO)
    host.ready("echo-1")
    touch(tmp_path / "slow", 60.0)
    wait_until(lambda: text(tmp_path / "slow").startswith("started"))
    host.process.send_signal(signal.SIGTERM)
    wait_until(lambda: host.status("echo-1") == "draining")
    assert host.stop() == 0


@pytest.mark.parametrize("victim", ["supervisor", "zygote"])
def test_killed_supervisor_leaves_no_process_and_its_successor_cleans_up(
    start_host: StartHost, victim: str
) -> None:
    host = start_host(ECHO)
    first = host.ready("echo-1")
    below = host.descendants()
    zygote = psutil.Process(host.process.pid).children()[0]
    if victim == "supervisor":
        host.stop(signal.SIGKILL)
    else:
        zygote.kill()
    assert psutil.wait_procs(below, timeout=10)[1] == []
    if victim == "supervisor":
        host.start_again()
    second = host.next_session("echo-1", first)
    first.refresh_from_db()
    assert first.end_reason in {"its supervisor died", "the zygote died"}
    assert second.pid not in {process.pid for process in below}


def test_host_takes_one_supervisor_only(start_host: StartHost) -> None:
    host = start_host(ECHO)
    host.ready("echo-1")
    second = start_host(ECHO, OPSCORE_NODE_NAME=host.name)
    assert second.process.wait(60) == 1
    assert "has a supervisor already" in (second.folder / "supervise.log").read_text()


def test_twenty_agents_together(start_host: StartHost, wait_until: WaitUntil) -> None:
    before = _backends()
    host = start_host(ECHO.replace("[echo]", "[echo], replicas: 20"))
    wait_until(lambda: Agent.objects.filter(status="active").count() == 21, 60)
    span = AgentSession.objects.aggregate(first=Min("started_at"), last=Max("ready_at"))
    pss = [psutil.Process(pid).memory_full_info().pss for pid in _pids()]
    mean = sum(pss) / len(pss) / 2**20
    print(
        f"20 agents and the platform's: {(span['last'] - span['first']).total_seconds():.2f} s, {mean:.1f} MiB"
    )
    assert mean < 40
    # The controller's and its announcer's: idle agents hold none.
    assert _backends() - before <= 2
    assert host.process.poll() is None


def _backends() -> int:
    """Count the connections to the tests' database."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        return int(cursor.fetchone()[0])


def _pids() -> list[int]:
    return [pid for pid in AgentSession.objects.values_list("pid", flat=True) if pid]


@pytest.mark.rabbitmq
@pytest.mark.xdist_group("rabbitmq")
def test_agents_on_rabbitmq_work_are_replaced_and_take_up_queues(
    start_host: StartHost,
    rabbitmq_url: str,
    project: Project,
    wait_until: WaitUntil,
    tmp_path: Path,
) -> None:
    word = f"echo{uuid.uuid4().hex[:8]}"  # RabbitMQ keeps queues of earlier tests
    host = start_host(
        f"""
        agents:
          cat: {{kind: command, command: [cat], capabilities: [{word}], labels: [gpu]}}
          echo: {{kind: worker, handlers: {HANDLERS}, capabilities: [echo], replicas: 0}}
        """,
        OPSCORE_BROKER_URL=rabbitmq_url,
    )
    first = host.ready("cat-1")
    queue = ensure(project, word, ["gpu"])
    wait_until(lambda: queue in host.ready("cat-1").queues)
    with Celery(broker=rabbitmq_url, set_as_current=False) as sender:
        sender.conf.task_queue_max_priority = 10
        for number, name in enumerate((f"default.{word}", queue)):
            sender.send_task("tests.touch", args=(str(tmp_path / str(number)),), queue=name)
        wait_until(lambda: text(tmp_path / "0") == text(tmp_path / "1") == f"finished {first.pid}")
        os.kill(first.pid or 0, signal.SIGKILL)
        second = host.next_session("cat-1", first)
        file = tmp_path / "again"
        sender.send_task("tests.touch", args=(str(file),), queue=queue)
        wait_until(lambda: text(file) == f"finished {second.pid}")


def test_agent_of_a_spec_that_is_gone_says_so(
    start_host: StartHost, project: Project, wait_until: WaitUntil
) -> None:
    Agent.objects.create(project=project, name="old", kind="worker", spec="gone", host="here")
    host = start_host(ECHO, OPSCORE_NODE_NAME="here")
    wait_until(lambda: host.status("old") == "error", 30)
    assert host.agent("old").reason == "the agents file of here has no spec 'gone'"


def test_bad_agents_file_is_one_clear_message(start_host: StartHost) -> None:
    host = start_host("agents: {a: {kind: worker, handler: x.y, capabilities: [a]}}")
    assert host.process.wait(60) == 1
    output = (host.folder / "supervise.log").read_text()
    assert "line 1: agents.a.handler: unknown key 'handler'; did you mean 'handlers'?" in output
    assert "Traceback" not in output


def test_deleted_agent_is_stopped(start_host: StartHost, wait_until: WaitUntil) -> None:
    host = start_host(ECHO)
    pid = host.ready("echo-1").pid or 0
    host.agent("echo-1").delete()
    wait_until(lambda: not psutil.pid_exists(pid))
