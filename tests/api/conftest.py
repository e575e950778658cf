"""Keys, clients and a live web server for the tests of the HTTP API."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from tests.live_server import server, server_url

__all__ = ["server", "server_url"]

if TYPE_CHECKING:
    from opscore.models import Project


@dataclass
class Api:
    """Django's test client with a key; every call returns Django's response."""

    key: str
    client: Client

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Send JSON, or a text as it is; headers as `Idempotency_Key="a"`."""
        kind = headers.pop("Content_Type", "application/json")
        data = body if isinstance(body, str | bytes) else json.dumps(body)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.key:
            sent.setdefault("Authorization", f"Bearer {self.key}")
        return self.client.generic(
            method, path, data if body is not None else b"", content_type=kind, headers=sent
        )


@pytest.fixture(autouse=True)
def _unbounded() -> None:
    """All tests come from one address."""
    from opscore.api.auth import wrong_keys
    from opscore.audit import verdicts
    from opscore.audit.record import refusals

    verdicts.forget()
    wrong_keys.forget()
    refusals.forget()


@pytest.fixture
def _guessing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every address may send as many wrong keys as it likes."""
    from opscore.api.auth import wrong_keys

    monkeypatch.setattr(wrong_keys, "_per_minute", 10**9)


@pytest.fixture
def make_api(project: Project) -> Callable[..., Api]:
    """Make clients whose keys have the scopes given: `make_api("read")`; none: no key."""
    from opscore import keys

    def make(*scopes: str) -> Api:
        text = keys.create(project, "test", scopes)[1] if scopes else ""
        return Api(text, Client(raise_request_exception=False))

    return make


@pytest.fixture
def api(make_api: Callable[..., Api]) -> Api:
    """A client that may do everything."""
    return make_api("admin")


@pytest.fixture
def agent(api: Api) -> dict[str, Any]:
    """A remote agent `echo-1` with the capability `echo`."""
    body = {"name": "echo-1", "kind": "remote", "capabilities": ["echo"]}
    answer = api("POST", "/agents", body)
    assert answer.status_code == 201
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
def session_id(api: Api, agent: dict[str, Any]) -> str:
    """An open session of that agent."""
    answer = api("POST", f"/agents/{agent['id']}/sessions", {})
    assert answer.status_code == 201
    return str(answer.json()["session_id"])


@pytest.fixture
def people(project: Project) -> Client:
    """A browser with an operator logged in."""
    User.objects.create_superuser("alice", "alice@example.org", "wonderland")
    browser = Client()
    assert browser.login(username="alice", password="wonderland")
    return browser


def act(browser: Client, page: str, action: str, row: str) -> Any:
    """Run an action of an admin's list on one row."""
    data = {"action": action, "_selected_action": [row]}
    return browser.post(reverse(f"admin:{page}_changelist"), data, follow=True)
