"""What agents of one host may do to each other, use and say, with a real supervisor."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil

from agents import output, registry
from opscore.models import Project
from tasks.graph import Node
from tasks.submission import submit_task
from tests.agents.conftest import HANDLERS, Host
from tests.conftest import WaitUntil

StartHost = Callable[..., Host]
ECHO = f"""
agents:
  echo: {{kind: worker, handlers: {HANDLERS}, capabilities: [echo]}}
"""


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_programs_of_other_agents_outlive_the_end_of_one(
    start_host: StartHost, wait_until: WaitUntil, tmp_path: Path
) -> None:
    # In a session of its own too: only its mark says whose it is.
    line = "(setsid sleep 300 & echo $! > $PID); cat"
    host = start_host(
        f"""
        agents:
          echo: {{kind: worker, handlers: {HANDLERS}, capabilities: [echo]}}
          keeper:
            kind: process
            capabilities: [x]
            command: [sh, -c, "{line}; sleep 300"]
            env: {{PID: {tmp_path / "pid"}}}
        """
    )
    first = host.ready("echo-1")
    orphan = int(wait_until(lambda: text(tmp_path / "pid").strip()))
    os.kill(first.pid or 0, signal.SIGKILL)
    host.next_session("echo-1", first)
    assert psutil.pid_exists(orphan)
    registry.stop(host.agent("keeper-1"))
    wait_until(lambda: not psutil.pid_exists(orphan))


def test_command_leaves_nothing_behind(
    start_host: StartHost, project: Project, wait_until: WaitUntil, tmp_path: Path
) -> None:
    line = "setsid sleep 300 & echo $! > $PID; env -i setsid sleep 300 & echo $! >> $PID; echo 1"
    host = start_host(
        f"""
        agents:
          leave:
            kind: command
            capabilities: [leave]
            command: [sh, -c, "{line}"]
            env: {{PID: {tmp_path / "pid"}}}
        """
    )
    first = host.ready("leave-1")
    task = submit_task(project, Node(key="task", capability="leave"))

    def is_done() -> bool:
        task.refresh_from_db()
        return task.status == "completed"

    wait_until(is_done)
    left = [int(pid) for pid in text(tmp_path / "pid").split()]
    assert len(left) == 2
    assert not any(psutil.pid_exists(pid) for pid in left)
    now = host.session("leave-1")
    assert now is not None
    assert now.pk == first.pk


def test_memory_limit_of_a_worker_fails_the_task_not_the_platform(
    start_host: StartHost, project: Project, wait_until: WaitUntil
) -> None:
    host = start_host(
        f"""
        agents:
          hog: {{kind: worker, handlers: {HANDLERS}, capabilities: [hog], limits: {{memory: 512MiB}}}}
        """
    )
    host.ready("hog-1")
    task = submit_task(project, Node(key="task", capability="hog", inputs={"bytes": 2**30}))

    def failed() -> bool:
        task.refresh_from_db()
        return task.status == "failed"

    wait_until(failed)
    assert (task.error or {})["type"] == "MemoryError"
    assert host.agent("hog-1").restarts == 0


def test_output_of_a_supervised_agent_is_answered_at_once(
    start_host: StartHost, wait_until: WaitUntil
) -> None:
    host = start_host(ECHO)
    host.ready("echo-1")

    def told() -> bool:
        tail = output.tail(host.agent("echo-1"), 50)
        return tail.is_fresh and any("agent.starting" in line for line in tail.lines)

    wait_until(told)
    host.stop()
    # Its supervisor is gone: what it told when the process ended is still there.
    wait_until(lambda: not output.tail(host.agent("echo-1"), 50, patience_s=0).is_fresh)
    last = output.tail(host.agent("echo-1"), 50, patience_s=0)
    assert "agent.stopped" in last.lines[-1]
