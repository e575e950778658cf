"""Circuit breakers: what is parked, what is let through, and what counts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.db.models import F

from agents import breakers, registry, sessions
from agents.handlers import Context, HandlerError
from agents.models import Agent, Breaker
from opscore.database import database_now
from opscore.models import Event
from tasks import claims, parking, reconcile, why
from tasks.execution import execute
from tasks.flow import Catch, Concurrency, RateLimit
from tasks.graph import Node
from tasks.models import Attempt, Run, Task
from tasks.retries import RetryPolicy
from tasks.transitions import parking as transitions
from tests.engine.conftest import Bench
from tests.engine.flows import begin, node, statuses, task_of
from tests.engine.plans import most_read

pytestmark = pytest.mark.django_db(transaction=True)


class Service:
    """Something outside that can be down; counts its calls."""

    def __init__(self, bench: Bench) -> None:
        self.is_down = True
        self.calls = 0
        self.most_at_once = 0
        bench.does("work", self.call)

    def call(self, context: Context) -> Any:
        self.calls += 1
        queued = Task.objects.filter(status__in=["queued", "running"], flow__has_key="resources")
        self.most_at_once = max(self.most_at_once, queued.count())
        if self.is_down:
            raise HandlerError("no answer", type="unavailable")
        return self.calls


@pytest.fixture
def service(bench: Bench) -> Service:
    return Service(bench)


def use(key: str = "a", resource: str = "openai", **fields: Any) -> Node:
    return node(key, resources=(resource,), **fields)


def many(bench: Bench, count: int, **fields: Any) -> Run:
    return begin(bench, *(use(f"t{n}", **fields) for n in range(count)))


def of(name: str = "openai", kind: str = "resource") -> Breaker:
    return Breaker.objects.get(kind=kind, name=name)


def pass_pause(*names: str) -> None:
    """Let the pause of open breakers be over: their row is moved, not a clock."""
    Breaker.objects.filter(name__in=names or ["openai"]).update(until=database_now())
    reconcile.reconcile()


def reach_starts(run: Run) -> None:
    """Let the starts that rate limits have reserved be now."""
    run.tasks.filter(waits_for="rate").update(wake_at=database_now())
    reconcile.reconcile()


def events(kind: str) -> list[dict[str, Any]]:
    return list(Event.objects.filter(kind=kind).order_by("id").values_list("data", flat=True))


# ------------------------------------------------------------ parked and let go
def test_failing_resource_opens_and_parks_without_attempts(bench: Bench, service: Service) -> None:
    run = many(bench, 50, retry=RetryPolicy(limit=1, initial_s=1e6))
    bench.finish(run)
    assert service.calls == 5
    assert of().state == "open"
    found = sorted(run.tasks.values_list("status", "waits_for", "attempt", "losses"))
    assert found == [("retrying", "", 2, 0)] * 5 + [("waiting", "breaker", 1, 0)] * 45
    assert Attempt.objects.count() == 5
    assert not run.tasks.filter(waits_for="breaker", session_id__isnull=False).exists()
    [told] = events("breaker.opened")
    assert (told["name"], told["kind"]) == ("openai", "resource")
    assert told["reason"] == "unavailable: no answer"
    # Whatever comes later is parked before it was ever queued.
    late = begin(bench, use("late"), node("free"))
    assert statuses(late) == {"late": "waiting", "free": "queued"}


def test_probes_then_ramp_then_all_complete(bench: Bench, service: Service) -> None:
    run = many(bench, 50, retry=RetryPolicy(limit=9, initial_s=0))
    bench.finish(run)
    for probes in range(1, 4):
        pass_pause()
        assert run.tasks.filter(status="queued").count() == 1
        bench.finish(run)
        assert (service.calls, of().state, of().openings) == (5 + probes, "open", 1 + probes)
    service.is_down, service.most_at_once = False, 0
    places = []
    pass_pause()
    while of().state != "closed":
        places.append(of().places)
        assert run.tasks.filter(status="queued").count() <= of().places
        bench.step(run.tasks.filter(status="queued").order_by("number")[0])
    assert places == [1, 2, 4, 8]
    assert bench.finish(run).status == "completed"
    assert len(events("breaker.opened")) == 4
    assert len(events("breaker.closed")) == 1
    # Each failed call was one attempt; nothing else was counted.
    assert Attempt.objects.filter(outcome="failed").count() == 8
    assert service.calls == 50 + 8


def test_queue_time_does_not_run_while_parked(bench: Bench, service: Service) -> None:
    breakers.open_by_hand(bench.project, "resource", "openai", actor="ann")
    run = begin(bench, use(queue_timeout_s=30.0))
    run.tasks.update(ready_at=database_now() - timedelta(hours=1))
    reconcile.reconcile()
    assert statuses(run) == {"a": "waiting"}
    service.is_down = False
    breakers.close_by_hand(bench.project, "resource", "openai", actor="ann")
    reconcile.reconcile()
    assert statuses(run) == {"a": "queued"}
    reconcile.reconcile()
    assert bench.finish(run).status == "completed"


def test_hint_under_way_is_refused_and_its_task_parked(bench: Bench, service: Service) -> None:
    run = begin(bench, use())
    task = task_of(run, "a")
    breakers.open_by_hand(bench.project, "resource", "openai")
    assert claims.claim(task.id, task.attempt, bench.session.id) is None
    assert claims.poll(bench.session.id, 5) == []
    assert parking.settle() is False
    assert task_of(run, "a").waits_for == "breaker"
    assert service.calls == 0


def test_parked_task_gives_its_slot_to_others(bench: Bench, service: Service) -> None:
    slot = Concurrency(key="one")
    run = begin(bench, use("a", concurrency=slot), node("b", concurrency=slot, priority=0))
    assert statuses(run) == {"a": "queued", "b": "waiting"}
    breakers.open_by_hand(bench.project, "resource", "openai")
    reconcile.reconcile()
    assert [task_of(run, "a").waits_for, statuses(run)["b"]] == ["breaker", "queued"]
    service.is_down = False
    bench.step(task_of(run, "b"))
    breakers.close_by_hand(bench.project, "resource", "openai")
    reconcile.reconcile()
    assert bench.finish(run).status == "completed"


def test_task_of_two_resources_waits_for_both(bench: Bench, service: Service) -> None:
    for name in ("openai", "github"):
        breakers.open_by_hand(bench.project, "resource", name)
    run = begin(bench, node("a", resources=("openai", "github")), use("b", "other"))
    assert statuses(run) == {"a": "waiting", "b": "queued"}
    breakers.close_by_hand(bench.project, "resource", "openai")
    reconcile.reconcile()
    assert statuses(run)["a"] == "waiting"
    breakers.close_by_hand(bench.project, "resource", "github")
    reconcile.reconcile()
    assert statuses(run)["a"] == "queued"


def test_release_does_not_read_what_waits_behind_an_open_breaker(bench: Bench) -> None:
    for name in ("openai", "github"):
        breakers.open_by_hand(bench.project, "resource", name)
    shut, free = many(bench, 1000), many(bench, 3, resource="github")
    breakers.close_by_hand(bench.project, "resource", "github")
    assert most_read(transitions.RELEASE, {"limit": 2}, "tasks_task") <= 5
    let_go = free.tasks.filter(wake_at__isnull=False).order_by("number")
    assert [task.key for task in let_go] == ["t0", "t1"]
    assert not shut.tasks.filter(wake_at__isnull=False).exists()


def test_probe_that_nobody_takes_makes_room(bench: Bench, service: Service) -> None:
    breakers.open_by_hand(bench.project, "resource", "openai", for_s=1)
    run = begin(bench, use("lost", capability="nobody", priority=9), use("a"))
    pass_pause()
    assert statuses(run) == {"lost": "queued", "a": "waiting"}
    run.tasks.filter(key="lost").update(ready_at=F("ready_at") - timedelta(seconds=11))
    reconcile.reconcile()
    assert statuses(run)["a"] == "queued"


@pytest.mark.parametrize(
    "limits",
    [
        {"rate_limit": RateLimit("r", limit=1, per_s=1000)},
        {"concurrency": Concurrency(key="c", limit=9)},
    ],
    ids=["rate", "slot"],
)
def test_tasks_under_other_limits_are_probes_like_all(
    bench: Bench, service: Service, limits: dict[str, Any]
) -> None:
    breakers.open_by_hand(bench.project, "resource", "openai", for_s=1)
    if "rate_limit" in limits:
        # The first start of the window is used up: the others wait for theirs.
        begin(bench, node("first", **limits))
    run = many(bench, 6, **limits)
    service.is_down = False
    pass_pause()
    probes = []
    while of().state != "closed":
        for _ in range(3):
            reach_starts(run)
        probes.append((run.tasks.filter(status="queued").count(), of().places))
        bench.step(run.tasks.filter(status="queued").order_by("number")[0])
    assert probes == [(1, 1), (2, 2), (4, 4), (3, 8)]
    for _ in range(6):
        reach_starts(run)
        bench.finish(run)
    assert service.calls == 6


def test_slot_that_becomes_free_lets_nobody_past_a_half_open_breaker(
    bench: Bench, service: Service
) -> None:
    slot = Concurrency(key="one")
    run = begin(bench, node("first", concurrency=slot, priority=9), use("late", concurrency=slot))
    other = many(bench, 1)
    breakers.open_by_hand(bench.project, "resource", "openai", for_s=1)
    reconcile.reconcile()
    pass_pause()
    assert (statuses(run)["late"], statuses(other)) == ("waiting", {"t0": "queued"})
    service.is_down = False
    bench.step(task_of(run, "first"))
    assert task_of(run, "late").waits_for == "breaker"
    bench.finish(other)
    reconcile.reconcile()
    assert bench.finish(run).status == "completed"


# ------------------------------------------------------------ what counts
def test_the_tasks_own_fault_does_not_count(bench: Bench) -> None:
    def bad_input(context: Context) -> Any:
        raise HandlerError("no such model", type="bad", retryable=False)

    bench.does("work", bad_input)
    bench.finish(many(bench, 6))
    assert not Breaker.objects.exists()


def test_rate_limited_answer_opens_at_once(bench: Bench) -> None:
    def limited(context: Context) -> Any:
        raise HandlerError("slow down", type="rate_limited", retry_after_s=120)

    bench.does("work", limited)
    run = many(bench, 2, retry=RetryPolicy(limit=3, initial_s=0))
    bench.finish(run)
    found = of()
    assert found.state == "open"
    assert found.until is not None
    assert 110 < (found.until - database_now()).total_seconds() <= 120
    assert sorted(run.tasks.values_list("waits_for", "attempt")) == [("breaker", 1), ("breaker", 2)]


def test_success_at_rest_writes_no_breaker(bench: Bench, service: Service) -> None:
    service.is_down = False
    bench.finish(many(bench, 6))
    assert not Breaker.objects.exists()
    service.is_down = True
    bench.finish(begin(bench, use()))
    service.is_down = False
    bench.finish(many(bench, 3))
    assert (of().state, of().calls, of().failures) == ("closed", 4, 1)


def test_what_catches_a_failure_needs_no_resource(bench: Bench, service: Service) -> None:
    bench.does("other", lambda context: "instead")
    breakers.open_by_hand(bench.project, "resource", "openai", for_s=1)
    run = begin(bench, use(catch=Catch(capability="other")))
    pass_pause()
    bench.finish(run)
    assert of().state == "open"
    assert statuses(run) == {"a": "completed"}


# ------------------------------------------------------------ one state for all
def test_two_at_once_open_it_once(bench: Bench) -> None:
    started_at = database_now()
    gate = threading.Barrier(8)

    def fail_once() -> None:
        gate.wait()
        breakers.attempt_failed(
            bench.project.pk, "resource", "openai", started_at=started_at, reason="x"
        )
        connections.close_all()

    threads = [threading.Thread(target=fail_once) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert of().state == "open"
    assert len(events("breaker.opened")) == 1


def test_only_one_probe_whoever_lets_it_through(bench: Bench, service: Service) -> None:
    breakers.open_by_hand(bench.project, "resource", "openai", for_s=1)
    run = many(bench, 10)
    Breaker.objects.update(until=database_now())
    breakers.let_probes_through()
    gate = threading.Barrier(6)

    def settle() -> None:
        gate.wait()
        parking.settle()
        connections.close_all()

    threads = [threading.Thread(target=settle) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run.tasks.filter(status="queued").count() == 1


# ------------------------------------------------------------ agents
@contextmanager
def another(bench: Bench, name: str) -> Iterator[Any]:
    agent = registry.register(bench.project, name=name, kind="remote", capabilities=["work"])[0]
    session = sessions.start(agent)
    sessions.ready(session.id)
    yield session


def test_agent_whose_attempts_time_out_is_left_alone(bench: Bench) -> None:
    with another(bench, "slow") as slow, another(bench, "sound") as sound:
        run = begin(bench, *(node(f"t{n}", timeout_s=60.0) for n in range(8)))
        assert len(claims.poll(slow.id, 5)) == 5
        run.tasks.filter(status="running").update(lease_until=database_now() - timedelta(1))
        reconcile.reconcile()
        assert (of("slow", "agent").state, Agent.objects.get(name="slow").places) == ("open", 0)
        assert claims.poll(slow.id, 5) == []
        taken = claims.poll(sound.id, 1)
        assert len(taken) == 1
        # Half open, it gets as many as there are places.
        pass_pause("slow")
        assert len(claims.poll(slow.id, 5)) == 1
        assert claims.poll(slow.id, 5) == []
        task = run.tasks.filter(session_id=slow.id, status="running").get()
        breakers.forget()
        from tasks.reports import complete

        complete(task.id, task.fence, 1)
        assert (of("slow", "agent").places, Agent.objects.get(name="slow").places) == (2, 2)
        assert len(claims.poll(slow.id, 5)) == 1  # the last one


def test_open_agent_is_no_reason_to_give_up(bench: Bench) -> None:
    run = begin(bench, node("a"))
    task = task_of(run, "a")
    breakers.open_by_hand(bench.project, "agent", "bench", reason="maintenance")
    sessions.ready(bench.session.id)
    assert execute(task.id, task.attempt, ()).value == "stale"
    [reason] = why.explain(task_of(run, "a")).reasons
    assert reason.code == "breaker"
    assert "circuit breaker of bench is open until it is closed by hand" in reason.message
    breakers.close_by_hand(bench.project, "agent", "bench")
    assert Agent.objects.get(name="bench").places is None
    assert bench.finish(run).status == "completed"


# ------------------------------------------------------------ why
def test_why_says_until_when_and_why(bench: Bench, service: Service) -> None:
    bench.finish(many(bench, 5))
    run = begin(bench, use("late"))
    [reason] = why.explain(task_of(run, "late")).reasons
    assert (reason.code, reason.until) == ("breaker", of().until)
    assert "'openai' is open until" in reason.message
    assert "no answer" in reason.message
    assert reason.refs == {"resources": ["openai"], "breakers": ["openai"]}
    pass_pause()
    other = begin(bench, use("later"))
    assert "half open" in why.explain(task_of(other, "later")).reasons[0].message
