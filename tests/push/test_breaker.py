"""The circuit breaker of an agent of kind http, with a real pusher."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agents import breakers
from agents.models import Agent, Breaker
from opscore.database import database_now
from opscore.models import Project
from tasks import reconcile
from tasks.models import Attempt, Task
from tasks.retries import RetryPolicy
from tests.conftest import WaitUntil
from tests.push.conftest import PusherProcess, ended, submit
from tests.push.stub import StubAgent, echo

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
MakeAgent = Callable[..., StubAgent]


def test_sound_agent_takes_over_from_one_that_breaks(
    pusher: PusherProcess, make_agent: MakeAgent, project: Project, wait_until: WaitUntil
) -> None:
    bad, good = make_agent("bad", concurrency=4), make_agent("good")
    bad.behaviour = lambda task: (500, {})
    pusher.active("bad", "good")
    retry = RetryPolicy(limit=20, initial_s=0)
    tasks = [submit(project, retry=retry) for _ in range(40)]
    wait_until(lambda: _all_ended(tasks), 60)
    assert {task.status for task in tasks} == {"completed"}
    found = Breaker.objects.get(kind="agent", name="bad")
    assert found.state == "open"
    assert "500" in found.reason
    # What was under way when it opened, at most its slots, went on.
    calls = len(bad.received)
    assert 5 <= calls <= 5 + 4
    assert Attempt.objects.count() == calls
    assert (len(good.received), Agent.objects.get(name="bad").places) == (40, 0)


def test_probe_then_ramp_over_http(
    pusher: PusherProcess, make_agent: MakeAgent, project: Project, wait_until: WaitUntil
) -> None:
    ann = make_agent("ann", concurrency=16)
    pusher.active("ann")
    breakers.open_by_hand(project, "agent", "ann", for_s=3600)
    ann.behaviour = lambda task: (500, {})
    tasks = [submit(project, retry=RetryPolicy(limit=9, initial_s=0)) for _ in range(20)]
    Breaker.objects.update(until=database_now())
    reconcile.reconcile()
    wait_until(lambda: Breaker.objects.get().openings == 2, 30)
    assert len(ann.received) == 1
    ann.behaviour = echo
    Breaker.objects.update(until=database_now())
    wait_until(lambda: _all_ended(tasks), 60)
    assert {task.status for task in tasks} == {"completed"}
    assert len(ann.received) == 21
    wait_until(lambda: Breaker.objects.get().state == "closed")


def _all_ended(tasks: list[Task]) -> bool:
    """Repair as beat does, then look."""
    reconcile.reconcile()
    return all(map(ended, tasks))
