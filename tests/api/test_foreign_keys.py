"""Every address and method with the keys of others: nothing is shown, changed or broken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from agents.models import Agent, AgentSession, Breaker, Host
from opscore import keys
from opscore.api.auth import KEYLESS
from opscore.api.middleware import is_page
from opscore.models import ApiKey, Event, Project
from tasks.models import Run, Task
from tests.api.conftest import Api
from webhooks.models import Delivery, Webhook
from workflows.models import Schedule, Workflow

pytestmark = pytest.mark.django_db
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
#: Words that each project gives a meaning of its own: whoever names one names his own.
OWN_WORDS = ("/capabilities/", "/breakers/")


@pytest.fixture
def filled(api: Api, session_id: str, agent: dict[str, Any], project: Project) -> dict[str, str]:
    """Make one of each thing in the project `default`; return what stands in addresses."""
    definition = {"name": "seen", "tasks": {"a": {"capability": "echo"}}}
    workflow = api("POST", "/workflows", definition).json()
    schedule = {"name": "nightly", "workflow": "seen", "cron": "0 3 * * *"}
    assert api("POST", "/schedules", schedule).status_code == 201
    task = api("POST", "/tasks", {"capability": "echo"}).json()
    assert api("POST", f"/sessions/{session_id}/claim", {}).json()["tasks"]
    assert api("PUT", f"/runs/{task['run_id']}/context/mood", {"value": 1}).status_code == 201
    Host.objects.create(project=project, name="box", specs={"lint": {"kind": "worker"}})
    hook = api("POST", "/webhooks", {"name": "chat", "url": "http://hooks.invalid/"}).json()
    told = Delivery.objects.create(id=8_765_432_109, webhook_id=hook["id"], event="x", payload={})
    own = api("POST", "/keys", {"name": "own", "scopes": ["read"]}).json()
    return {
        "/agents/<str:ref>": f"/agents/{agent['id']}",
        "/keys/<str:ref>": f"/keys/{own['prefix']}",
        "/webhooks/<str:ref>": f"/webhooks/{hook['id']}",
        "<int:delivery_id>": str(told.pk),
        "/workflows/<str:ref>": f"/workflows/{workflow['id']}",
        "/schedules/<str:ref>": "/schedules/nightly",
        "/hosts/<str:name>": "/hosts/box",
        "<str:spec>": "lint",
        "<uuid:session_id>": session_id,
        "<uuid:task_id>": task["id"],
        "<uuid:run_id>": task["run_id"],
        "<str:key>": "mood",
    }


def addresses(filled: dict[str, str]) -> Iterator[tuple[str, Any]]:
    """Every address of the API with the ids of things that exist, and its view."""
    for route, view in _walk(get_resolver().url_patterns, "/"):
        if is_page(route) or route in KEYLESS:
            continue
        yield _named(route, filled), view


def _named(route: str, filled: dict[str, str]) -> str:
    for name, real in filled.items():
        route = route.replace(name, real)
    route = re.sub(r"<uuid:\w+>", "01890000-0000-7000-8000-000000000000", route)
    return re.sub(r"<\w+:\w+>", "agent", route)


def _walk(patterns: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for entry in patterns:
        route = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            yield from _walk(entry.url_patterns, route)
        elif isinstance(entry, URLPattern):
            yield route, entry.callback


def state(project: Project) -> list[Any]:
    """What a change of the project would show."""
    models = (Agent, AgentSession, ApiKey, Breaker, Event, Run, Schedule, Task, Webhook, Workflow)
    rows: list[Any] = [
        list(model._default_manager.filter(project=project).order_by("pk").values())
        for model in models
    ]
    for key in rows[2]:
        key.pop("last_used_at")
    return rows


def is_json(answer: Any) -> bool:
    return str(answer["Content-Type"]).startswith("application/json")


def is_of_one_thing(address: str, filled: dict[str, str]) -> bool:
    return any(real in address for real in filled.values())


def test_the_key_of_another_project_finds_nothing(
    api: Api, filled: dict[str, str], project: Project
) -> None:
    _, api.key = keys.create(Project.objects.create(slug="other"), "foreign", ["admin"])
    before = state(project)
    seen = 0
    for address, view in addresses(filled):
        for method in METHODS:
            answer = api(method, address, None if method in {"GET", "HEAD"} else {})
            assert answer.status_code < 500, (method, address, answer.content)
            is_allowed = hasattr(view.cls, method.lower())
            if any(word in address for word in OWN_WORDS) or not is_allowed:
                continue
            if is_of_one_thing(address, filled):
                seen += 1
                # An empty body may be refused before anything is looked for.
                missing = {404} if method in {"GET", "DELETE"} else {400, 404}
                assert answer.status_code in missing, (method, address, answer.content)
            elif method == "GET" and is_json(answer) and "results" in answer.json():
                found = answer.json()["results"]
                assert all(row.get("name") == "foreign" for row in found if "prefix" in row)
                assert not any(real in str(found) for real in filled.values()), address
    assert seen > 80
    assert state(project) == before


def test_the_key_of_another_agent_does_nothing(
    api: Api, filled: dict[str, str], project: Project
) -> None:
    body = {"name": "eve", "kind": "remote", "capabilities": ["echo"]}
    assert api("POST", "/agents", body).status_code == 201
    api.key = api("POST", "/keys", {"name": "eve", "agent": "eve"}).json()["key"]
    before = state(project)
    for address, view in addresses(filled):
        for method in METHODS:
            if hasattr(view.cls, method.lower()):
                answer = api(method, address, None if method in {"GET", "HEAD"} else {})
                assert answer.status_code in {400, 403, 404}, (method, address, answer.content)
    assert state(project) == before


@pytest.mark.usefixtures("_guessing")
@pytest.mark.parametrize("how", ["revoked", "expired", "cut off"])
def test_a_key_that_works_no_more_opens_nothing(
    api: Api, filled: dict[str, str], project: Project, how: str
) -> None:
    key = keys.find(project, "test")
    if how == "revoked":
        keys.revoke(project, key.prefix)
    elif how == "expired":
        ApiKey.objects.filter(pk=key.pk).update(expires_at=key.created_at)
    else:
        api.key = api.key[:-1]
    before = state(project)
    for address, _ in addresses(filled):
        for method in METHODS:
            answer = api(method, address, {})
            assert answer.status_code == 401, (method, address, answer.content)
    assert state(project) == before
