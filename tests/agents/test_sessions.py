from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.dispatch import Signal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents import health, registry, sessions, transitions
from agents.models import Agent, AgentSession
from agents.signals import session_ready, sessions_ended
from agents.states import AGENT
from opscore.config import load_config
from opscore.database import query
from opscore.models import Event, Project


@contextmanager
def heard(signal: Signal) -> Iterator[list[dict[str, Any]]]:
    news: list[dict[str, Any]] = []

    def hear(**message: Any) -> None:
        assert not connection.in_atomic_block, "news must wait for the commit"
        news.append(message)

    signal.connect(hear)
    try:
        yield news
    finally:
        signal.disconnect(hear)


def make(project: Project, name: str = "r") -> Agent:
    return registry.register(project, name=name, kind="remote", capabilities=["x"])[0]


def status(agent: Agent) -> str:
    agent.refresh_from_db()
    return agent.status


def age(session: AgentSession, seconds: float) -> None:
    query(
        """UPDATE agents_agentsession SET seen_at = now() - make_interval(secs => %(age)s)
           WHERE id = %(id)s""",
        {"age": seconds, "id": session.pk},
    )


pytestmark = pytest.mark.django_db(transaction=True)


def test_session_begins_beats_and_ends(project: Project) -> None:
    agent = make(project)
    session = sessions.start(agent, queues=["default.x"])
    assert status(agent) == "initializing"
    with heard(session_ready) as news:
        assert sessions.ready(session.pk)
    assert [message["agent"] for message in news] == [agent]
    assert status(agent) == "active"
    assert sessions.beat([session.pk, UUID(int=1)]) == {session.pk}
    with heard(sessions_ended) as news:
        sessions.end([session.pk], "over")
    assert [(m["session_ids"], m["reason"]) for m in news] == [([session.pk], "over")]
    assert sessions.beat([session.pk]) == set()
    assert not sessions.ready(session.pk)
    assert sessions.live(session.pk) is None


def test_session_ends_once(project: Project) -> None:
    session = sessions.start(make(project))
    with heard(sessions_ended) as news:
        sessions.end([session.pk], "first")
        sessions.end([session.pk], "second")
        sessions.end([], "nobody")
    assert len(news) == 1
    session.refresh_from_db()
    assert session.end_reason == "first"
    assert Event.objects.filter(kind="agent.lost").count() == 1


def test_end_that_is_rolled_back_is_not_announced(project: Project) -> None:
    session = sessions.start(make(project))
    with heard(sessions_ended) as news, transaction.atomic():
        sessions.end([session.pk], "never")
        transaction.set_rollback(True)
    assert news == []
    assert sessions.live(session.pk) is not None


def test_newer_session_replaces_the_older(project: Project) -> None:
    agent = make(project)
    older = sessions.start(agent)
    sessions.ready(older.pk)
    with heard(sessions_ended) as news:
        newer = sessions.start(agent)
    assert news[0]["session_ids"] == [older.pk]
    sessions.ready(newer.pk)
    assert status(agent) == "active"
    assert not Event.objects.filter(kind="agent.lost").exists()


def test_of_many_starts_at_once_one_session_lives(project: Project) -> None:
    agent = make(project)
    gate = Barrier(8)

    def begin(_: int) -> None:
        gate.wait(10)
        try:
            sessions.ready(sessions.start(agent).pk)
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(begin, range(8)))
    assert AgentSession.objects.filter(agent=agent).count() == 8
    assert AgentSession.objects.filter(agent=agent, ended_at=None).count() == 1
    assert status(agent) == "active"


def test_starts_retirements_and_health_checks_do_not_deadlock(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_config(), "session_ttl_s", 0.001)
    agent = make(project)
    verbs: list[Callable[[], object]] = [
        lambda: sessions.ready(sessions.start(agent).pk),
        lambda: registry.retire(agent),
        health.check,
    ]

    def repeat(verb: Callable[[], object]) -> None:
        try:
            for _ in range(25):
                verb()
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(repeat, verbs * 2))
    assert AgentSession.objects.filter(agent=agent, ended_at=None).count() <= 1


def test_silent_agent_is_unresponsive_until_it_begins_anew(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Shorter than the tests' own PostgreSQL has lived: a young server grants everybody a term.
    monkeypatch.setattr(load_config(), "session_ttl_s", 2.0)
    agent, lively = make(project, "silent"), make(project, "lively")
    session, other = sessions.start(agent), sessions.start(lively)
    for each in (session, other):
        sessions.ready(each.pk)
    age(session, 3)
    with heard(sessions_ended) as news:
        assert health.check() == [session.pk]
        assert health.check() == []
    assert [m["session_ids"] for m in news] == [[session.pk]]
    assert (status(agent), agent.reason) == ("unresponsive", "silent for 2 s")
    assert status(lively) == "active"
    sessions.beat([session.pk])
    assert status(agent) == "unresponsive"
    sessions.ready(sessions.start(agent).pk)
    assert status(agent) == "active"


def test_served_queues_are_those_of_ready_sessions(project: Project) -> None:
    first = sessions.start(make(project, "a"), queues=["q1", "q2"])
    sessions.ready(first.pk)
    sessions.start(make(project, "b"), queues=["q3"])
    assert set(sessions.served_slots(max_age_s=0)) == {"q1", "q2"}
    sessions.end([first.pk], "over")
    assert set(sessions.served_slots()) == {"q1", "q2"}
    assert set(sessions.served_slots(max_age_s=0)) == set()


def test_condemned_session_keeps_its_first_reason(project: Project) -> None:
    agent = make(project)
    # Only what a supervisor started can be killed by one.
    session = sessions.start(agent)
    assert sessions.condemn([session.pk], "nobody could") == set()
    session.refresh_from_db()
    assert session.condemned == ""
    Agent.objects.filter(pk=agent.pk).update(spec="worker")
    assert sessions.condemn([session.pk], "too long") == {session.pk}
    assert sessions.condemn([session.pk], "other") == {session.pk}
    session.refresh_from_db()
    assert session.condemned == "too long"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(AGENT.statuses), st.sampled_from(AGENT.statuses))
def test_status_changes_only_along_the_table(project: Project, source: str, target: str) -> None:
    agent = make(project)
    Agent.objects.filter(pk=agent.pk).update(status=source)
    moved = transitions.change([agent.pk], target)
    allowed = target in AGENT.arrows[source]
    assert moved == ({agent.pk} if allowed else set())
    assert status(agent) == (target if allowed else source)


@pytest.mark.parametrize("source", AGENT.statuses)
def test_new_life_may_begin_from_every_status(project: Project, source: str) -> None:
    agent = make(project)
    Agent.objects.filter(pk=agent.pk).update(status=source)
    transitions.begin([agent.pk])
    assert status(agent) == "initializing"
