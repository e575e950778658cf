"""How what is addressed travels: announced, hinted through an agent's own queue, hinted again."""

from __future__ import annotations

import pytest

from agents import queues, registry, sessions
from agents.models import AgentSession
from opscore.database import query
from tasks import broker, housekeeping, reconcile
from tasks.claims import claim
from tasks.flow import Flow
from tasks.graph import Node
from tasks.reports import complete
from tasks.transitions import addressing
from tests.engine.conftest import Bench
from tests.engine.diggers import agent, ask
from tests.engine.flows import begin, task_of

pytestmark = pytest.mark.django_db(transaction=True)


def test_addressed_task_is_announced_to_its_agent_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks import dispatch

    one = agent(bench, "one")
    words: list[set[str]] = []
    monkeypatch.setattr(dispatch, "_announce", lambda told: words.append(told) if told else None)
    ask(bench, sticky="k")
    ask(bench)
    assert words == [{queues.own(one.pk)}, {"dig"}]


def test_worker_is_hinted_through_its_own_queue_and_nothing_is_carried_past_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks import canvas

    sent: list[list[str]] = []
    monkeypatch.setattr(
        canvas,
        "send",
        lambda plan, addresses: sent.append(
            [addresses[number].queue for part in plan for number in part.run]
        ),
    )
    worker, _ = registry.enrol(bench.project, "worker@here", ["dig"])
    own = [queues.queue_name("default", "dig"), queues.own(worker.pk)]
    session = sessions.start(worker, queues=own)
    sessions.ready(session.pk)
    sessions.served_slots(max_age_s=0)
    run = begin(
        bench,
        Node("a", "dig"),
        Node("b", "dig", needs=("a",), flow=Flow(sticky="k")),
        Node("c", "dig", needs=("b",)),
    )
    task = claim(task_of(run, "a").pk, 1, session.pk)
    assert task is not None
    complete(task.id, task.fence, None)
    # The successor of the sticky one may travel with it: that has no wish.
    assert sent == [["default.dig"], [own[1], "default.dig"]]


def at_work(bench: Bench) -> tuple[AgentSession, str]:
    """Start a worker that takes no messages; return its session and its own queue."""
    worker, _ = registry.enrol(bench.project, "worker@here", ["dig"])
    own = queues.own(worker.pk)
    session = sessions.start(worker, queues=[own])
    sessions.ready(session.pk)
    sessions.served_slots(max_age_s=0)
    reconcile.reconcile()  # a broker that nobody knows yet counts as one that lost its memory
    return session, own


def age_hints(seconds: float) -> None:
    query(
        "UPDATE tasks_task SET hinted_at = hinted_at - make_interval(secs => %(s)s)",
        {"s": seconds},
    )


def test_backlog_of_one_agent_does_not_multiply_its_hints(bench: Bench) -> None:
    session, own = at_work(bench)
    for _ in range(5):
        ask(bench, sticky="k")
    assert broker.lengths([own]) == {own: 5}
    age_hints(6)
    reconcile.repeat_hints()
    # Its worker was paused, say, and takes work again.
    sessions.announce_ready(session.agent_id)
    assert broker.lengths([own]) == {own: 5}


def test_hints_of_one_agent_that_were_lost_come_again(bench: Bench) -> None:
    session, own = at_work(bench)
    for _ in range(3):
        ask(bench, sticky="k")
    broker.drop([own])
    age_hints(6)
    reconcile.repeat_hints()
    assert broker.lengths([own]) == {own: 3}
    broker.drop([own])
    sessions.announce_ready(session.agent_id)
    assert broker.lengths([own]) == {own: 3}


def test_agent_that_appears_has_a_bounded_part_of_its_backlog_looked_at(bench: Bench) -> None:
    session, _ = at_work(bench)
    for _ in range(3):
        ask(bench, sticky="k")
    params = {"agent": session.agent_id, "limit": 2}
    assert [len(query(addressing.WAITING_FOR, params)) for _ in range(3)] == [2, 1, 0]


def test_queue_of_a_worker_that_is_gone_is_dropped_with_its_hints(bench: Bench) -> None:
    session, own = at_work(bench)
    ask(bench, sticky="k")
    assert broker.lengths([own]) == {own: 1}
    housekeeping.drop_queues()
    assert broker.lengths([own]) == {own: 1}
    sessions.end([session.pk], "gone")
    query("UPDATE agents_agentsession SET ended_at = now() - interval '1 hour'", {})
    housekeeping.drop_queues()
    assert broker.lengths([own]) == {own: 0}
    client = broker._client()
    remembered = [client.smembers(key) for key in client.keys("_kombu.binding.*")]
    assert not [each for each in set().union(*remembered) if own.encode() in each]
