"""Circuit breakers over the API: who may see and move them."""

from __future__ import annotations

from typing import Any

import pytest

from opscore.models import Event
from opscore_sdk import Client, InvalidError, NotFoundError
from tests.live_server import Server

pytestmark = pytest.mark.django_db(transaction=True)


def test_breaker_is_opened_configured_and_closed(client: Client) -> None:
    assert client.breakers() == []
    never = client.breaker("resource", "openai")
    assert (never["state"], never["since"], never["min_calls"]) == ("closed", None, 5)
    opened = client.open_breaker("resource", "openai", reason="they said so", for_s=600)
    assert (opened["state"], opened["reason"]) == ("open", "they said so")
    assert opened["until"] is not None
    assert opened["changed_by"]
    assert client.open_breaker("resource", "openai")["until"] is None
    found = client.configure_breaker("resource", "openai", threshold=0.25, min_calls=3)
    assert (found["threshold"], found["min_calls"], found["window_s"]) == (0.25, 3, 60.0)
    assert [row["name"] for row in client.breakers()] == ["openai"]
    closed = client.close_breaker("resource", "openai")
    assert (closed["state"], closed["threshold"]) == ("closed", 0.25)
    kinds = Event.objects.filter(kind__startswith="breaker.").order_by("id")
    assert list(kinds.values_list("kind", flat=True)) == [
        "breaker.opened",
        "breaker.opened",
        "breaker.configured",
        "breaker.closed",
    ]


def test_what_is_no_breaker_is_refused(client: Client) -> None:
    with pytest.raises(NotFoundError, match="no agent 'nobody'"):
        client.breaker("agent", "nobody")
    with pytest.raises(NotFoundError, match="agent or resource"):
        client.close_breaker("planet", "mars")
    with pytest.raises(InvalidError):
        client.configure_breaker("resource", "openai", threshold=2)
    with pytest.raises(InvalidError):
        client.open_breaker("resource", "x" * 81)


def test_agent_is_left_alone_while_its_breaker_is_open(client: Client) -> None:
    client.register_agent("ann", "remote", capabilities=["work"])
    session: Any = client.begin_session("ann")
    client.submit("work")
    client.open_breaker("agent", "ann")
    assert client.claim(_id(session), limit=5) == []
    client.close_breaker("agent", "ann")
    assert len(client.claim(_id(session), limit=5)) == 1


def test_submitted_task_is_parked(client: Client, server: Server) -> None:
    client.open_breaker("resource", "openai", reason="down")
    task = client.submit("work", resource=["openai"])
    shown = client.task(task.id)
    assert (shown.status, shown.raw["waits_for"]) == ("waiting", "breaker")
    [reason] = client.why_task(task.id).reasons
    assert reason.code == "breaker"
    assert "down" in reason.message


def _id(session: Any) -> str:
    return str(session.raw["session_id"])
