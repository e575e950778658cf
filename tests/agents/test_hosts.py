"""To whom a host belongs, and what its supervisor knows of programs that it did not see begin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.db import connection
from django.db.utils import DatabaseError

from agents import sessions
from agents.models import Agent
from agents.supervisor import records
from agents.supervisor.announcer import Announcer
from agents.supervisor.ledger import HostLostError, Ledger
from opscore.config import load_config
from opscore.models import Project
from tests.conftest import WaitUntil

pytestmark = pytest.mark.django_db(transaction=True)
LOCK = "SELECT pg_try_advisory_lock(%s, hashtext(%s))"


@pytest.fixture
def other() -> Iterator[psycopg.Connection[Any]]:
    """Another connection to the tests' database."""
    said = connection.get_connection_params()
    known = ("dbname", "user", "password", "host", "port")
    with psycopg.connect(**{k: said[k] for k in known if said.get(k)}, autocommit=True) as found:
        yield found


@pytest.fixture
def ledger(project: Project) -> Iterator[Ledger]:
    found = Ledger(load_config(), f"host-{uuid4().hex[:8]}", {}, Announcer())
    yield found
    connection.close()


def take(other: psycopg.Connection[Any], host: str) -> bool:
    row = other.execute(LOCK, (records._LOCK_CLASS, host)).fetchone()
    return bool(row and row[0])


def test_host_that_somebody_else_took_over_is_lost(
    ledger: Ledger, other: psycopg.Connection[Any], project: Project, wait_until: WaitUntil
) -> None:
    ledger.open(lambda: False)
    assert ledger.listen() is not None
    agent = Agent.objects.get(host=ledger.host)
    sessions.start(agent, host=ledger.host)
    connection.close()
    ledger.lost()
    # The server notices a closed connection a little later.
    wait_until(lambda: take(other, ledger.host))
    with pytest.raises(HostLostError, match="has taken the host"):
        ledger.listen()
    # What it had is its successor's business now.
    ledger.close([])
    agent.refresh_from_db()
    assert agent.status == "initializing"
    assert records.wanted(ledger.host)


def test_connection_that_broke_unseen_is_ended_and_is_nobody_else(
    ledger: Ledger, other: psycopg.Connection[Any], wait_until: WaitUntil
) -> None:
    assert take(other, ledger.host)
    ledger._backend = other.info.backend_pid
    with pytest.raises(DatabaseError, match="last connection"):
        ledger.listen()
    wait_until(lambda: records.lock_host(ledger.host))
    assert ledger.listen() is not None
    assert ledger._backend == records.backend_pid()


def test_program_that_began_between_two_looks_did_begin(ledger: Ledger, project: Project) -> None:
    agent = Agent.objects.create(project=project, name="p-1", kind="process", host=ledger.host)
    session = sessions.start(agent, host=ledger.host)
    assert ledger.began(session.pk)  # nobody can say: it has no connection yet
    ledger.listen()
    assert not ledger.began(session.pk)
    sessions.ready(session.pk)
    assert ledger.began(session.pk)
    connection.close()
    ledger.lost()
    assert ledger.began(session.pk)


def test_news_for_one_host_wake_no_other(other: psycopg.Connection[Any]) -> None:
    from agents import news

    for channel in (news.CHANNEL, news.channel_of("one")):
        other.execute(f"LISTEN {channel}")
    news.publish("two")
    news.publish("one")
    news.publish()
    heard = [found.channel for found in other.notifies(timeout=20, stop_after=2)]
    assert heard == [news.channel_of("one"), news.CHANNEL]
