"""Pools: sizes set by hand, by the file and by the autoscale rule, with a real supervisor."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable

import pytest

from agents import news, pools
from agents.models import Agent, Pool
from agents.models import Host as HostRow
from opscore.errors import InvalidError
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


def test_pool_above_what_its_host_carries_takes_nobody_down(
    start_host: StartHost, wait_until: WaitUntil
) -> None:
    host = start_host(SLOW % "")
    first = host.ready("slow-1")
    host.ready("platform-1")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Room for two more.
    resource.prlimit(host.process.pid, resource.RLIMIT_NOFILE, (112, hard))
    # Refused by now where the supervisor has said so; it may have been asked before.
    Pool.objects.create(host=HostRow.objects.get(name=host.name), spec="slow", replicas=6)
    news.publish()
    wait_until(lambda: Agent.objects.filter(status="error").count() == 3, 40)
    wait_until(lambda: len(running(host)) == 3, 40)
    reason = Agent.objects.filter(status="error").values_list("reason", flat=True)[0]
    assert "this host can have 4 agents at once" in reason
    assert host.session("slow-1") == first
    assert host.process.poll() is None
    wait_until(lambda: HostRow.objects.get(name=host.name).carries == 4)
    with pytest.raises(InvalidError, match="can have 4 agents at once: 3 of slow beside"):
        pools.scale(HostRow.objects.get(name=host.name), "slow", 4)


def test_scaling_down_finishes_what_runs(
    start_host: StartHost, project: Project, wait_until: WaitUntil
) -> None:
    # Longer than a drain: only the end of the supervisor itself may cut them off.
    host = start_host(SLOW % ", replicas: 2", OPSCORE_DRAIN_S="0.3")
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


def test_rule_of_the_api_grows_a_pool_within_what_the_file_allows(
    start_host: StartHost, server: Server, project: Project, wait_until: WaitUntil
) -> None:
    host = start_host(SLOW % ", max_replicas: 3")
    host.ready("slow-1")
    url = f"/hosts/{host.name}/specs/slow"
    rule = {"min": 1, "max": 3, "queue_wait_s": 0.5}
    with server.client() as http:
        refused = http.put(url, json={"autoscale": rule | {"max": 4}})
        assert refused.status_code == 400
        assert "allows at most 3 of slow (max_replicas)" in refused.text
        assert http.put(url, json={"replicas": 4}).status_code == 400
        [spec] = http.put(url, json={"autoscale": rule}).json()["specs"]
        assert (spec["autoscale"], spec["scaled_replicas"], spec["max_replicas"]) == (rule, 1, 3)
        for _ in range(8):
            submit_task(project, Node(key="task", capability="slow", inputs={"seconds": 2.0}))
        wait_until(lambda: len(running(host)) == 3, 30)
        [spec] = http.delete(url).json()["specs"]
        assert (spec["autoscale"], spec["scaled_replicas"]) == (None, None)
    wait_until(lambda: running(host) == {"slow-1"}, 30)
    host.stop(signal.SIGINT)


def test_worker_is_recycled_after_its_tasks_without_a_loss(
    start_host: StartHost, project: Project, wait_until: WaitUntil
) -> None:
    host = start_host(
        SLOW % ", recycle: {max_tasks: 2}", OPSCORE_SESSION_TTL_S="3", OPSCORE_DRAIN_S="0.3"
    )
    first = host.ready("slow-1")
    for seconds in (0.1, 0.1, 0.1, 0.1, 0.8):
        submit_task(project, Node(key="task", capability="slow", inputs={"seconds": seconds}))
    host.next_session("slow-1", first)
    first.refresh_from_db()
    assert first.end_reason.startswith("recycled after")
    # The second one, and at most one message more that Celery had taken already.
    assert 2 <= Task.objects.filter(session_id=first.pk).count() <= 3
    wait_until(lambda: Task.objects.filter(status="completed").count() == 5, 40)
    assert set(Task.objects.values_list("losses", flat=True)) == {0}
    assert host.agent("slow-1").restarts == 0
