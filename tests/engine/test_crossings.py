"""Breakers, addresses, windows and pauses: what each does to the others."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from agents import breakers, queues, routes, sessions
from agents.models import Agent, Breaker
from opscore.database import database_now
from tasks import backlog, claims, control, reconcile
from tasks.graph import Node
from tasks.models import Task
from tasks.reports import fail_queued
from tasks.retries import RetryPolicy
from tasks.submission import submit_task
from tests.engine.conftest import Bench
from tests.engine.diggers import agent, ask, lapse, takes
from tests.engine.flows import begin, node, statuses, task_of

pytestmark = pytest.mark.django_db(transaction=True)
FORGOTTEN = datetime(1970, 1, 1, tzinfo=UTC)


def hole(bench: Bench, tenant: str) -> UUID:
    return submit_task(bench.project, Node("hole", "dig"), fairness_key=tenant).pk


def test_paused_run_keeps_no_probe_from_others(bench: Bench) -> None:
    breakers.open_by_hand(bench.project, "resource", "openai")
    paused = begin(bench, node("p", resources=("openai",)))
    control.pause_run(paused.id)
    breakers.close_by_hand(bench.project, "resource", "openai")
    reconcile.reconcile()
    assert task_of(paused, "p").wake_at is None, "it goes on when its run does"
    breakers.open_by_hand(bench.project, "resource", "openai", for_s=600)
    other = begin(bench, node("o", resources=("openai",)))
    Breaker.objects.update(until=database_now())
    reconcile.reconcile()
    assert (statuses(paused), statuses(other)) == ({"p": "waiting"}, {"o": "queued"})
    breakers.close_by_hand(bench.project, "resource", "openai")
    control.resume_run(paused.id)
    reconcile.reconcile()
    assert statuses(paused) == {"p": "queued"}


def test_agent_behind_an_open_breaker_is_not_chosen(bench: Bench) -> None:
    shut, other = agent(bench, "shut", "gpu"), agent(bench, "other")
    breakers.open_by_hand(bench.project, "agent", shut.name)
    for wishes in ({"prefers": {"gpu": 100}}, {"sticky": "a"}, {"sticky": "b"}, {"sticky": "c"}):
        task = ask(bench, **wishes)
        task.refresh_from_db()
        assert task.for_agent in {other.pk, None}, wishes
    assert Task.objects.filter(for_agent=other.pk).count() >= 3


def test_route_of_polling_agents_leaves_the_line_fair(bench: Bench) -> None:
    one = agent(bench, "one")
    routes.put(bench.project, "dig", "round_robin", {})
    large = [hole(bench, "large") for _ in range(3 * backlog.FORK)]
    small = hole(bench, "small")
    assert Task.objects.filter(for_agent=one.pk).count() == backlog.FORK
    order = takes(one, len(large) + 1)
    assert order[: backlog.FORK] == large[: backlog.FORK]
    assert order.index(small) == backlog.FORK + 2, "behind the present round of its line"


def test_task_whose_patience_is_over_keeps_its_place(bench: Bench) -> None:
    one = agent(bench, "one")
    routes.put(bench.project, "dig", "round_robin", {})
    made = [hole(bench, f"t{n}") for n in range(2 * backlog.FORK)]
    other = agent(bench, "other")
    assert takes(other) == [made[backlog.FORK]], "all before it are addressed"
    lapse(*Task.objects.filter(for_agent=one.pk))
    reconcile.free_addressed()
    assert takes(other, backlog.FORK) == made[: backlog.FORK]


def test_refused_hint_leaves_the_window(bench: Bench) -> None:
    worker = Agent.objects.create(
        project=bench.project, name="w", kind="worker", capabilities=["work"]
    )
    session = sessions.start(worker, queues=[queues.queue_name("default", "work")])
    sessions.ready(session.pk)
    task = task_of(begin(bench, node("a")), "a")
    assert task.hinted_at is not None
    Agent.objects.filter(pk=worker.pk).update(paused=True)
    assert claims.claim(task.id, task.attempt, session.pk) is None
    assert claims.spent(task.id) == "queued"
    task.refresh_from_db()
    assert task.hinted_at == FORGOTTEN
    Agent.objects.filter(pk=worker.pk).update(paused=False)
    reconcile.repeat_hints()
    task.refresh_from_db()
    assert task.hinted_at is not None
    assert task.hinted_at > FORGOTTEN


def test_parked_task_is_addressed_anew_when_its_breaker_closes(bench: Bench) -> None:
    one, other = agent(bench, "one"), agent(bench, "other")
    task = ask(bench, sticky="k", resources=("openai",))
    task.refresh_from_db()
    bound, free = (one, other) if task.for_agent == one.pk else (other, one)
    breakers.open_by_hand(bench.project, "resource", "openai")
    assert takes(bound) == []
    reconcile.reconcile()
    task.refresh_from_db()
    assert (task.waits_for, task.for_agent) == ("breaker", None)
    breakers.close_by_hand(bench.project, "resource", "openai")
    reconcile.reconcile()
    assert takes(free) == []
    assert takes(bound) == [task.pk]


def test_address_ends_with_the_time_in_the_queue(bench: Bench) -> None:
    one = agent(bench, "one")
    task = ask(bench, sticky="k", retry=RetryPolicy(limit=1, initial_s=1e6))
    task.refresh_from_db()
    assert task.for_agent == one.pk
    error = {"type": "queue_timeout", "message": "nobody took it"}
    fail_queued(task.id, task.fence, error, outcome="timeout")
    late = Task.objects.get(pk=task.pk)
    assert (late.status, late.for_agent, late.for_until) == ("retrying", None, None)
