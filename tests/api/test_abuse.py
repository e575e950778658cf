"""Those who have no right to anything: what they cost, and what they cannot hide."""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import UUID

import pytest
from django.test import Client
from django.urls import reverse

from opscore import attempt_tokens, quotas
from opscore.api.auth import wrong_keys
from opscore.api.rates import buckets
from opscore.config import load_config
from opscore.models import AuditEntry, Project
from tests.api.conftest import Api
from tests.round_trips import round_trips

pytestmark = pytest.mark.django_db
ECHO = {"capability": "echo"}


@pytest.fixture(autouse=True)
def _no_memory() -> None:
    buckets.forget()


@pytest.fixture
def minute(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Set the clock of all quotas."""

    def set_minute(number: int) -> None:
        monkeypatch.setattr(time, "monotonic", lambda: number * 60.0)

    set_minute(1)
    return set_minute


def told() -> list[tuple[str, str, int | None]]:
    return [(row.action, row.actor, row.status) for row in AuditEntry.objects.order_by("id")]


def test_each_source_has_its_own_number() -> None:
    quota = quotas.Quota(3)
    assert [quota.takes("a") for _ in range(5)] == [True] * 3 + [False] * 2
    assert quota.takes("b")
    assert (quota.is_spent("a"), quota.is_spent("b")) == (True, False)


def test_strangers_fill_no_disk_and_hide_nobody(
    make_api: Callable[..., Api], minute: Callable[[int], None]
) -> None:
    stranger, reader = make_api(), make_api("read")
    for _ in range(35):
        stranger("POST", "/tasks", ECHO)
    assert AuditEntry.objects.count() == 30
    reader("POST", "/tasks", ECHO)
    Client().post(reverse("admin:login"), {"username": "x", "password": "y"})
    assert told()[30:] == [("POST /tasks", "test", 403), ("login.failed", "", 401)]
    minute(2)
    stranger("POST", "/tasks", ECHO)
    row = AuditEntry.objects.get(action="refusals")
    assert row.data == {"not recorded": 5}
    minute(3)
    stranger("POST", "/tasks", ECHO)
    assert AuditEntry.objects.filter(action="refusals").count() == 1


def test_keys_that_are_guessed_cost_no_statement_after_a_while(
    api: Api, make_api: Callable[..., Api], minute: Callable[[int], None]
) -> None:
    assert api("GET", "/tasks").status_code == 200
    guess = make_api()
    for number in range(600):
        wrong_keys.takes("127.0.0.1" if number else "10.0.0.1")
    guess.key = "ok_abcdefghij_x"
    assert guess("GET", "/tasks").status_code == 401
    with round_trips() as sent:
        answer = guess("GET", "/tasks")
    assert (answer.status_code, answer["Retry-After"], sent) == (429, "60", [])
    assert api("GET", "/tasks").status_code == 200, "who is known is not kept out by others"
    minute(2)
    assert guess("GET", "/tasks").status_code == 401


def test_refused_requests_count_too(
    make_api: Callable[..., Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_config(), "rate_limit", "3/h")
    reader = make_api("read")
    assert [reader("POST", "/tasks", ECHO).status_code for _ in range(5)] == [403] * 3 + [429] * 2


def test_the_key_of_an_attempt_is_held_to_the_limit_of_agents(
    api: Api, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = api("POST", "/tasks", ECHO).json()["id"]
    monkeypatch.setattr(load_config(), "agent_rate_limit", "2/h")
    own = Api(attempt_tokens.issue(project.pk, UUID(task), 1), Client())
    sent = [own("POST", f"/tasks/{task}/heartbeat", {"fence": 1}) for _ in range(3)]
    assert [answer.status_code for answer in sent] == [409, 409, 429]


def test_an_address_with_a_zone_loses_no_row(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from opscore import origin

    monkeypatch.setattr(load_config(), "trusted_proxies", "127.0.0.1/32")
    origin._proxies.cache_clear()
    try:
        assert api("POST", "/tasks", ECHO, X_Forwarded_For="::1%aaaa").status_code == 201
    finally:
        monkeypatch.undo()
        origin._proxies.cache_clear()
    assert [row.address for row in AuditEntry.objects.all()] == ["127.0.0.1"]
