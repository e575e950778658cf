"""Pools: sizes set by hand, by the file and by the autoscale rule, with a real supervisor."""

from __future__ import annotations

import signal
from collections.abc import Callable

from agents import pools
from agents.models import Agent, Pool
from agents.models import Host as HostRow
from opscore.models import Event, Project
from tasks.graph import Node
from tasks.models import Task
from tasks.submission import submit_task
from tests.agents.conftest import HANDLERS, Host
from tests.conftest import WaitUntil
from tests.live_server import Server, server, server_url

__all__ = ["server", "server_url"]

StartHost = Callable[..., Host]
SLOW = f"""
agents:
  slow: {{kind: worker, handlers: {HANDLERS}, capabilities: [slow]%s}}
"""


def running(host: Host) -> set[str]:
    agents = Agent.objects.filter(host=host.name, spec="slow", status="active")
    return set(agents.values_list("name", flat=True))


def test_pool_is_scaled_by_the_api_and_keeps_its_size_over_restarts(
    start_host: StartHost, server: Server, wait_until: WaitUntil
) -> None:
    host = start_host(SLOW % "")
    host.ready("slow-1")
    url = f"/hosts/{host.name}/specs/slow"
    with server.client() as http:
        answer = http.put(url, json={"replicas": 3})
        assert answer.status_code == 200
        assert answer.json()["specs"][0]["set_replicas"] == 3
        wait_until(lambda: running(host) == {"slow-1", "slow-2", "slow-3"})
        assert host.stop() == 0
        host.start_again()
        wait_until(lambda: running(host) == {"slow-1", "slow-2", "slow-3"})
        assert http.get(f"/hosts/{host.name}").json()["specs"][0]["active"] == 3
        assert http.put(url, json={"replicas": 1}).status_code == 200
        wait_until(lambda: running(host) == {"slow-1"})
        assert http.put(url, json={"replicas": 2}).status_code == 200
        wait_until(lambda: running(host) == {"slow-1", "slow-2"})
        assert http.delete(url).json()["specs"][0]["set_replicas"] is None
        wait_until(lambda: running(host) == {"slow-1"})
    assert Event.objects.filter(kind="pool.scaled", actor="live").count() == 4


def test_scaling_down_finishes_what_runs(
    start_host: StartHost, project: Project, wait_until: WaitUntil
) -> None:
    host = start_host(SLOW % ", replicas: 2")
    host.ready("slow-1"), host.ready("slow-2")
    for _ in range(2):
        submit_task(project, Node(key="task", capability="slow", inputs={"seconds": 1.0}))
    wait_until(lambda: Task.objects.filter(status="running").count() == 2)
    pools.scale(HostRow.objects.get(name=host.name), "slow", 0)
    wait_until(lambda: running(host) == set())
    wait_until(lambda: Task.objects.filter(status="completed").count() == 2)
    assert set(Task.objects.values_list("losses", flat=True)) == {0}


def test_rule_grows_the_pool_while_tasks_wait(
    start_host: StartHost, project: Project, wait_until: WaitUntil
) -> None:
    rule = ", autoscale: {min: 1, max: 3, queue_wait: 1s}"
    host = start_host(SLOW % rule)
    host.ready("slow-1")
    for _ in range(12):
        submit_task(project, Node(key="task", capability="slow", inputs={"seconds": 2.0}))
    wait_until(lambda: len(running(host)) == 3, 30)
    pool = Pool.objects.get(spec="slow")
    assert (pool.scaled, pool.replicas) == (3, None)
    # What an operator says goes before the rule.
    pools.scale(HostRow.objects.get(name=host.name), "slow", 1)
    wait_until(lambda: running(host) == {"slow-1"}, 30)
    host.stop(signal.SIGINT)


def test_worker_is_recycled_after_its_tasks_without_a_loss(
    start_host: StartHost, project: Project, wait_until: WaitUntil
) -> None:
    host = start_host(SLOW % ", recycle: {max_tasks: 2}", OPSCORE_SESSION_TTL_S="3")
    first = host.ready("slow-1")
    for _ in range(5):
        submit_task(project, Node(key="task", capability="slow", inputs={"seconds": 0.2}))
    host.next_session("slow-1", first)
    first.refresh_from_db()
    assert first.end_reason.startswith("recycled after")
    wait_until(lambda: Task.objects.filter(status="completed").count() == 5, 40)
    assert set(Task.objects.values_list("losses", flat=True)) == {0}
    assert host.agent("slow-1").restarts == 0
