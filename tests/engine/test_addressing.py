"""Tasks that are addressed to agents: whom they wait for, until when, and what becomes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from django.db.models.functions import Now

from agents import registry, routes, sessions
from agents.models import Agent, AgentSession
from opscore.database import query
from opscore.errors import InvalidError, NotFoundError
from tasks import durations, housekeeping, reconcile
from tasks.addressing import PATIENCE_S
from tasks.claims import claim, poll
from tasks.flow import Flow
from tasks.graph import Node
from tasks.models import Sticky, Task
from tasks.reports import complete, fail
from tasks.retries import RetryPolicy
from tests.engine.conftest import Bench
from tests.engine.diggers import agent, ask, lapse, reason, session_of, takes
from tests.engine.flows import begin, pass_time, task_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    routes.forget()
    durations.forget()
    yield
    routes.forget()


# ------------------------------------------------------------ nothing, by default
def test_task_without_wishes_is_addressed_to_nobody(bench: Bench) -> None:
    one = agent(bench, "one")
    task = ask(bench)
    task.refresh_from_db()
    assert (task.for_agent, task.for_until, task.routing) == (None, None, None)
    assert takes(one) == [task.pk]


# ------------------------------------------------------------ prefers
def test_preferred_agent_gets_the_task_and_others_wait_for_its_patience(bench: Bench) -> None:
    plain, gpu = agent(bench, "plain"), agent(bench, "strong", "gpu", concurrency=1)
    task = ask(bench, prefers={"gpu": 5})
    assert takes(plain) == []
    code, message = reason(task)
    assert code == "addressed"
    assert "addressed to strong, which is about to take it" in message
    assert "preferred for gpu: +5" in message
    assert takes(gpu) == [task.pk]
    task.refresh_from_db()
    assert (task.for_agent, task.for_until) == (None, None)
    assert "strong took it" in reason(task)[1]
    assert "was chosen (strategy least_loaded; preferred for gpu: +5)" in reason(task)[1]


def test_preference_holds_nothing_up(bench: Bench) -> None:
    plain, gpu = agent(bench, "plain"), agent(bench, "strong", "gpu", concurrency=1)
    first, second = ask(bench, prefers={"gpu": 5}), ask(bench, prefers={"gpu": 5})
    # The one slot is promised already: the next task is the other agent's.
    assert takes(plain, 2) == [second.pk]
    assert takes(gpu, 2) == [first.pk]
    third = ask(bench, prefers={"gpu": 5})
    third.refresh_from_db()
    assert third.for_agent is None


def test_preferred_agent_gets_as_many_as_it_has_places(bench: Bench) -> None:
    plain, gpu = agent(bench, "plain"), agent(bench, "strong", "gpu", concurrency=2)
    first, second, third = (ask(bench, prefers={"gpu": 5}) for _ in range(3))
    assert takes(plain, 3) == [third.pk]
    assert sorted(takes(gpu, 3)) == sorted([first.pk, second.pk])


def test_patience_passes_and_anybody_may_take_it(bench: Bench) -> None:
    plain, gpu = agent(bench, "plain"), agent(bench, "strong", "gpu", concurrency=1)
    task = ask(bench, prefers={"gpu": 5})
    left = Task.objects.get(pk=task.pk)
    assert left.for_until is not None
    assert left.hinted_at is not None
    assert 0 < (left.for_until - left.hinted_at).total_seconds() <= PATIENCE_S + 1
    lapse(task)
    reconcile.free_addressed()
    task.refresh_from_db()
    assert task.for_agent is None
    # It is not addressed again: the next hint is for all.
    assert takes(plain) == [task.pk]
    assert "was free while strong, for which it was meant, did not take it" in reason(task)[1]
    assert takes(gpu) == []


def test_agent_that_ends_loses_what_was_addressed_to_it(bench: Bench) -> None:
    gpu = agent(bench, "strong", "gpu", concurrency=1)
    plain = agent(bench, "plain")
    task = ask(bench, prefers={"gpu": 5})
    sessions.end([session_of(gpu)], "killed")
    # Only one is left, which suits as well as all: whoever asks.
    assert takes(plain) == [task.pk]


def test_worker_does_not_take_a_hint_for_another(bench: Bench) -> None:
    one, other = agent(bench, "one"), agent(bench, "other")
    task = ask(bench, sticky="k")
    task.refresh_from_db()
    mine, its = (one, other) if task.for_agent == one.pk else (other, one)
    assert claim(task.pk, 1, session_of(its)) is None
    assert claim(task.pk, 1, session_of(mine)) is not None


# ------------------------------------------------------------ sticky
def test_sticky_key_stays_with_its_agent_while_that_lives(bench: Bench) -> None:
    agents = {one.pk: one for one in (agent(bench, name) for name in ("a", "b", "c"))}
    first = ask(bench, sticky="repo-1")
    first.refresh_from_db()
    assert first.for_agent is not None
    bound = agents[first.for_agent]
    assert first.for_until is None
    tasks = [first, *(ask(bench, sticky="repo-1") for _ in range(5))]
    for other in agents.values():
        if other != bound:
            assert takes(other, 10) == []
    code, message = reason(tasks[3])
    assert code == "sticky"
    assert f"waits for {bound.name} alone" in message
    assert "'repo-1' is bound to that agent since 20" in message
    # The oldest first, all at the one agent.
    assert takes(bound, 1) == [first.pk]
    assert set(takes(bound, 10)) == {task.pk for task in tasks[1:]}
    assert f"{bound.name} took it" in reason(first)[1]
    assert "has the sticky key 'repo-1' since" in reason(first)[1]


def test_end_of_the_bound_agent_loses_no_task_and_binds_anew(bench: Bench) -> None:
    agents = {one.pk: one for one in (agent(bench, name) for name in ("a", "b", "c"))}
    tasks = [ask(bench, sticky="k") for _ in range(4)]
    row = Sticky.objects.get()
    old = agents.pop(row.agent_id)
    assert takes(old, 1) == [tasks[0].pk]
    sessions.end([session_of(old)], "killed")
    new = agents.pop(Sticky.objects.get().agent_id)
    assert Sticky.objects.get().bound_at > row.bound_at
    reconcile.repeat_hints()
    assert takes(agents.popitem()[1], 10) == []
    assert sorted(takes(new, 10)) == sorted(task.pk for task in tasks)


def test_sticky_task_waits_for_a_paused_agent_and_leaves_one_that_drains(bench: Bench) -> None:
    one, other = agent(bench, "one"), agent(bench, "other")
    task = ask(bench, sticky="k")
    bound, free = (one, other) if Sticky.objects.get().agent_id == one.pk else (other, one)
    registry.pause(bound)
    assert takes(free) == []
    assert "which is paused" in reason(task)[1]
    registry.resume(bound)
    registry.drain(bound)
    reconcile.free_addressed()
    assert takes(free) == [task.pk]


def test_sticky_task_that_nobody_can_take_is_bound_when_somebody_comes(bench: Bench) -> None:
    task = ask(bench, sticky="k")
    assert reason(task)[0] == "no_agent"
    late = agent(bench, "late")
    assert takes(late) == [task.pk]
    assert Sticky.objects.get().agent_id == late.pk


def test_failed_attempt_of_a_sticky_task_is_tried_again_at_the_same_agent(bench: Bench) -> None:
    agents = [agent(bench, name) for name in ("a", "b", "c")]
    task = ask(bench, sticky="k", retry=RetryPolicy(limit=2))
    bound = next(one for one in agents if one.pk == Sticky.objects.get().agent_id)
    for _ in range(2):
        [held] = poll(session_of(bound), 5)
        fail(task.pk, held.fence, {"type": "unlucky", "message": "no luck"})
        pass_time(task.run)
        assert all(takes(one) == [] for one in agents if one != bound)
    assert takes(bound) == [task.pk]


def test_key_of_a_step_is_evaluated_for_the_run_and_for_each_item(bench: Bench) -> None:
    one, other = agent(bench, "one"), agent(bench, "other")
    run = begin(
        bench,
        Node("all", "dig", flow=Flow(for_each=["x", "y", "x"], sticky="${{ item }}")),
        inputs={},
    )
    keys = {
        task.item_index: (task.routing or {})["sticky"]
        for task in run.tasks.filter(parent_id__isnull=False)
    }
    assert keys == {0: "x", 1: "y", 2: "x"}
    bound = dict(Sticky.objects.values_list("key", "agent_id"))
    # The second key goes to the one that has less to do.
    assert set(bound.values()) == {one.pk, other.pk}


def test_key_that_cannot_be_evaluated_fails_the_task(bench: Bench) -> None:
    agent(bench, "one")
    run = begin(bench, Node("a", "dig", flow=Flow(sticky="${{ inputs.none }}")))
    task = task_of(run, "a")
    assert task.status == "failed"
    assert task.error is not None
    assert (task.error["type"], "none" in task.error["message"]) == ("expression", True)
    empty = task_of(begin(bench, Node("b", "dig", flow=Flow(sticky="${{ '' }}"))), "b")
    assert empty.error is not None
    assert "1 to 300 characters" in empty.error["message"]


def test_bindings_that_nobody_uses_are_forgotten(bench: Bench) -> None:
    agent(bench, "one")
    ask(bench, sticky="old")
    ask(bench, sticky="new")
    query("UPDATE tasks_sticky SET used_at = now() - interval '8 days' WHERE key = 'old'", {})
    housekeeping.forget_bindings()
    assert [row.key for row in Sticky.objects.all()] == ["new"]


# ------------------------------------------------------------ strategies
def shares(bench: Bench, agents: list[Agent], tasks: int) -> Counter[str]:
    """Submit tasks one after the other; each agent does at once what it was given."""
    done: Counter[str] = Counter()
    for _ in range(tasks):
        task = ask(bench)
        [(one, held)] = [(one, got) for one in agents if (got := poll(session_of(one), 5))]
        complete(task.pk, held[0].fence, None)
        done[one.name] += 1
    return done


def test_round_robin_over_polling_agents(bench: Bench) -> None:
    agents = [agent(bench, name) for name in ("a", "b", "c")]
    routes.put(bench.project, "dig", "round_robin", {})
    assert shares(bench, agents, 6) == Counter(a=2, b=2, c=2)


def test_weighted_by_name_and_by_label(bench: Bench) -> None:
    agents = [agent(bench, "a"), agent(bench, "b"), agent(bench, "c", "big")]
    routes.put(bench.project, "dig", "weighted", {"b": 2, "big": 3})
    assert shares(bench, agents, 12) == Counter(a=2, b=4, c=6)


def test_sticky_strategy_keeps_a_run_together_but_waits_for_nobody(bench: Bench) -> None:
    for name in ("a", "b", "c", "d"):
        agent(bench, name)
    routes.put(bench.project, "dig", "sticky", {})
    run = begin(bench, *(Node(f"n{n}", "dig") for n in range(6)))
    found = {task.for_agent for task in run.tasks.all() if task.for_agent}
    assert len(found) == 1
    assert not run.tasks.filter(for_agent=None).exists()
    lapse(*run.tasks.all())
    one = Agent.objects.exclude(pk__in=found).filter(capabilities=["dig"]).first()
    assert one is not None
    assert len(takes(one, 9)) == 6


def test_fastest_learns_from_what_was_done(bench: Bench) -> None:
    quick, slow = agent(bench, "quick"), agent(bench, "slow")
    for one, seconds in ((quick, 1), (slow, 60)):
        task = ask(bench)
        complete(task.pk, poll(session_of(one), 1)[0].fence, None)
        query(
            "UPDATE tasks_task SET started_at = completed_at - make_interval(secs => %(s)s)"
            " WHERE id = %(id)s",
            {"s": seconds, "id": task.pk},
        )
    routes.put(bench.project, "dig", "fastest", {})
    for _ in range(3):
        task = ask(bench)
        task.refresh_from_db()
        assert task.for_agent == quick.pk


def test_route_is_dropped_and_bad_ones_are_refused(bench: Bench) -> None:
    one = agent(bench, "one")
    routes.put(bench.project, "dig", "round_robin", {})
    routes.drop(bench.project, "dig")
    task = ask(bench)
    task.refresh_from_db()
    assert task.for_agent is None
    assert takes(one) == [task.pk]
    with pytest.raises(NotFoundError, match="whoever is free first"):
        routes.drop(bench.project, "dig")
    with pytest.raises(InvalidError) as refused:
        routes.put(bench.project, " ", "best", {"a": 0})
    assert {problem.path for problem in refused.value.problems} == {
        "strategy",
        "capability",
        "weights",
        "weights.a",
    }


# ------------------------------------------------------------ how many at once
def test_agent_never_has_more_than_its_concurrency(bench: Bench) -> None:
    one = agent(bench, "one", concurrency=2)
    tasks = [ask(bench) for _ in range(4)]
    held = poll(session_of(one), 10, one.concurrency)
    assert len(held) == 2
    assert poll(session_of(one), 10, one.concurrency) == []
    complete(held[0].id, held[0].fence, None)
    assert [task.id for task in poll(session_of(one), 10, one.concurrency)] == [tasks[2].pk]


def test_agent_that_is_back_at_once_leaves_the_key_where_it_went(bench: Bench) -> None:
    agents = {one.pk: one for one in (agent(bench, name) for name in ("a", "b"))}
    tasks = [ask(bench, sticky="k") for _ in range(3)]
    old = agents.pop(Sticky.objects.get().agent_id)
    [other] = agents.values()
    # Its next session is open before anybody is told that the last one has ended.
    AgentSession.objects.filter(agent=old).update(ended_at=Now())
    ask(bench, sticky="k")
    sessions.ready(sessions.start(old).pk)
    assert takes(old, 10) == []
    assert len(takes(other, 10)) == len(tasks) + 1
