"""A supervisor that is killed in the middle of work, and what its successor makes of it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import psutil

from agents.models import Agent, AgentSession
from opscore.models import Project
from tasks.graph import Node
from tasks.models import Attempt, Task
from tasks.submission import submit_task
from tests.agents.conftest import HANDLERS, Host
from tests.conftest import WaitUntil
from tests.live_server import Server, server, server_url

__all__ = ["server", "server_url"]

HERE = Path(__file__).parent
SPECS = f"""
agents:
  slow: {{kind: worker, handlers: {HANDLERS}, capabilities: [slow], replicas: 2}}
  prog:
    kind: process
    capabilities: [prog]
    command: [python, program.py]
    cwd: {HERE}
    replicas: 2
"""
AGENTS = ("slow-1", "slow-2", "prog-1", "prog-2")


def test_killed_supervisor_under_load_loses_nothing_and_doubles_no_agent(
    start_host: Callable[..., Host], server: Server, project: Project, wait_until: WaitUntil
) -> None:
    host = start_host(SPECS, OPSCORE_API_URL=server.url)
    first = {name: host.ready(name).pk for name in AGENTS}
    for number in range(24):
        word = ("slow", "prog")[number % 2]
        submit_task(project, Node(key="task", capability=word, inputs={"seconds": 0.3}))
    wait_until(lambda: Task.objects.filter(status="running").count() == 4)
    below = host.descendants()
    host.stop(signal.SIGKILL)
    host.start_again()
    wait_until(lambda: Task.objects.filter(status="completed").count() == 24, 60)
    assert psutil.wait_procs(below, timeout=10)[1] == []
    _each_agent_lives_once(host)
    ended = AgentSession.objects.filter(pk__in=first.values())
    assert set(ended.values_list("end_reason", flat=True)) == {"its supervisor died"}
    # Those that were in the middle of something, and nobody else, lost their agent once.
    lost = Task.objects.filter(losses__gt=0)
    assert 1 <= lost.count() <= 4
    assert set(lost.values_list("losses", "attempt")) == {(1, 1)}
    assert Attempt.objects.filter(outcome="lost").count() == lost.count()


def _each_agent_lives_once(host: Host) -> None:
    live = AgentSession.objects.filter(ended_at=None, agent__name__in=AGENTS)
    assert sorted(live.values_list("agent__name", flat=True)) == sorted(AGENTS)
    assert Agent.objects.filter(host=host.name).count() == len(AGENTS) + 1
    pids = {pid for pid in live.values_list("pid", flat=True) if pid}
    programs = [p.pid for p in host.descendants() if "program.py" in " ".join(p.cmdline())]
    assert len(programs) == 2
    assert set(programs) <= pids
