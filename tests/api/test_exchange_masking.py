"""Secrets in what agents hand each other: agents get them, people see that there was one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from opscore import vault
from opscore.models import Project
from tasks.models import Message, SharedEntry
from tests.api.conftest import Api

pytestmark = pytest.mark.django_db
TOKEN = "s3cr3t/of the house"
VALUE = {"header": f"Bearer {TOKEN}", "more": [TOKEN], "n": 1}
MASKED = {"header": "Bearer ***", "more": ["***"], "n": 1}


@pytest.fixture
def run(api: Api, agent: dict[str, Any], project: Project) -> str:
    """Make a run whose context and whose messages hold a secret."""
    vault.put(project, "TOKEN", TOKEN)
    run = api("POST", "/tasks", {"capability": "echo"}).json()["run_id"]
    assert api("PUT", f"/runs/{run}/context/login", {"value": VALUE}).json()["value"] == MASKED
    body = {"to": {"agent": "echo-1"}, "body": VALUE}
    assert api("POST", f"/runs/{run}/messages", body).status_code == 201
    return str(run)


def test_people_see_the_values_masked(api: Api, run: str) -> None:
    assert api("GET", f"/runs/{run}/context/login").json()["value"] == MASKED
    [entry] = api("GET", f"/runs/{run}/context").json()["entries"]
    assert entry["value"] == MASKED
    [message] = api("GET", f"/runs/{run}/messages").json()["results"]
    assert message["body"] == MASKED
    [sparse] = api("GET", f"/runs/{run}/messages?fields=id,topic").json()["results"]
    assert set(sparse) == {"id", "topic"}


def test_agents_get_the_values_as_they_are(
    make_api: Callable[..., Api], session_id: str, run: str
) -> None:
    executor = make_api("agent")
    assert executor("GET", f"/runs/{run}/context/login").json()["value"] == VALUE
    [entry] = executor("GET", f"/runs/{run}/context").json()["entries"]
    assert entry["value"] == VALUE
    received = executor("POST", f"/sessions/{session_id}/messages/receive", {}).json()
    assert received["messages"][0]["body"] == VALUE


def test_pages_show_the_values_masked(people: Client, run: str) -> None:
    entry, message = SharedEntry.objects.get(), Message.objects.get()
    for page in (f"sharedentry/{entry.pk}", f"message/{message.pk}"):
        text = people.get(f"/admin/tasks/{page}/change/").content.decode()
        assert "Bearer ***" in text
        assert TOKEN not in text
