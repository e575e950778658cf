"""The key of one agent acts as that agent only, and only on what its sessions hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from agents.models import Agent
from opscore import keys
from opscore.models import Project
from tasks.models import Message, Task
from tests.api.conftest import Api

pytestmark = pytest.mark.django_db
ECHO = {"capability": "echo", "inputs": {}}


@pytest.fixture
def key_of(api: Api, make_api: Callable[..., Api]) -> Callable[[str], Api]:
    """Register a remote agent and give a client with a key that is its own."""

    def make(name: str) -> Api:
        body = {"name": name, "kind": "remote", "capabilities": ["echo"]}
        assert api("POST", "/agents", body).status_code == 201
        made = api("POST", "/keys", {"name": f"key of {name}", "agent": name})
        assert made.status_code == 201, made.content
        assert made.json()["scopes"] == ["agent"]
        own = make_api()
        own.key = made.json()["key"]
        return own

    return make


def begun(own: Api, name: str) -> str:
    answer = own("POST", f"/agents/{name}/sessions", {})
    assert answer.status_code == 201, answer.content
    return str(answer.json()["session_id"])


def claimed(own: Api, session: str) -> dict[str, Any]:
    [task] = own("POST", f"/sessions/{session}/claim", {}).json()["tasks"]
    found: dict[str, Any] = task
    return found


def test_an_agent_works_with_a_key_of_its_own(api: Api, key_of: Callable[[str], Api]) -> None:
    own = key_of("ada")
    body = {"name": "ada", "kind": "remote", "capabilities": ["echo"]}
    assert own("POST", "/agents", body).status_code == 200
    session = begun(own, "ada")
    made = api("POST", "/tasks", ECHO).json()
    task = claimed(own, session)
    assert task["id"] == made["id"]
    fence = {"fence": task["fence"]}
    held = {"tasks": [{"id": task["id"], **fence}]}
    assert own("POST", f"/sessions/{session}/heartbeat", held).json() == {"cancelled": []}
    path = f"/tasks/{task['id']}"
    assert own("POST", f"{path}/logs", {**fence, "lines": ["hello"]}).status_code == 204
    assert own("POST", f"{path}/progress", {**fence, "fraction": 0.5}).status_code == 204
    entry = f"/runs/{task['run_id']}/context/mood"
    assert own("PUT", entry, {"value": "good"}).json()["updated_by"] == "agent:ada"
    report = {**fence, "status": "completed", "result": 1}
    assert own("POST", f"{path}/report", report).status_code == 204
    assert own("POST", f"{path}/report", report).status_code == 409
    assert own("DELETE", f"/sessions/{session}").status_code == 204


def test_what_another_agent_has_does_not_exist_for_it(
    api: Api, key_of: Callable[[str], Api]
) -> None:
    ada, bob = key_of("ada"), key_of("bob")
    session = begun(bob, "bob")
    api("POST", "/tasks", ECHO)
    task = claimed(bob, session)
    fence = {"fence": task["fence"]}
    path = f"/tasks/{task['id']}"
    told: list[tuple[str, str, Any]] = [
        ("POST", f"/sessions/{session}/claim", {}),
        ("POST", f"/sessions/{session}/heartbeat", {}),
        ("POST", f"/sessions/{session}/messages/receive", {}),
        ("POST", f"/sessions/{session}/messages/{uuid4()}/ack", {"receipt": str(uuid4())}),
        ("POST", "/agents/bob/sessions", {}),
        ("DELETE", f"/sessions/{session}", None),
        ("POST", f"{path}/report", {**fence, "status": "completed", "result": "stolen"}),
        ("POST", f"{path}/report", {**fence, "status": "failed", "error": {"message": "x"}}),
        ("POST", f"{path}/logs", {**fence, "lines": ["forged"]}),
        ("POST", f"{path}/progress", {**fence, "fraction": 1}),
        ("GET", f"/runs/{task['run_id']}/context", None),
        ("PUT", f"/runs/{task['run_id']}/context/mood", {"value": "bad"}),
        ("GET", f"/runs/{task['run_id']}/messages", None),
        ("POST", f"/runs/{task['run_id']}/messages", {"to": {"agent": "bob"}}),
    ]
    own_session = begun(ada, "ada")
    for method, address, body in told:
        answer = ada(method, address, body)
        assert answer.status_code == 404, (method, address, answer.content)
    stolen = {"fence": task["fence"], "id": task["id"]}
    answer = ada("POST", f"/sessions/{own_session}/heartbeat", {"tasks": [stolen]})
    assert answer.json() == {"cancelled": [task["id"]]}
    row = Task.objects.get(pk=task["id"])
    assert (row.status, row.result, str(row.session_id)) == ("running", None, session)
    assert not Message.objects.exists()
    report = {**fence, "status": "completed", "result": "own"}
    assert bob("POST", f"{path}/report", report).status_code == 204


def test_it_may_do_nothing_else(key_of: Callable[[str], Api]) -> None:
    ada = key_of("ada")
    body = {"name": "eve", "kind": "remote", "capabilities": ["echo"]}
    assert ada("POST", "/agents", body).status_code == 403
    wider = {"name": "ada", "kind": "remote", "capabilities": ["echo", "root"]}
    assert ada("POST", "/agents", wider).status_code == 400
    assert Agent.objects.get(name="ada").capabilities == ["echo"]
    for path in ("/agents", "/tasks", "/runs", "/events", "/keys", "/agents/ada"):
        assert ada("GET", path).status_code == 403, path
    assert ada("POST", "/tasks", ECHO).status_code == 403
    assert ada("POST", "/keys", {"name": "x"}).status_code == 403


def test_every_method_that_it_may_call_says_so(key_of: Callable[[str], Api]) -> None:
    """Whatever a bound key may call must hold it to its own; so the list is short and known."""
    open_to_it = {
        (view.cls.__name__, method)
        for view in _views(get_resolver().url_patterns)
        for method in getattr(view.cls, "session_methods", ())
    }
    assert open_to_it == {
        ("Agents", "POST"),
        ("AgentSessions", "POST"),
        ("OneSession", "DELETE"),
        ("Claim", "POST"),
        ("Heartbeat", "POST"),
        ("Report", "POST"),
        ("TellProgress", "POST"),
        ("Logs", "POST"),
        ("SharedContext", "GET"),
        ("SharedEntry", "GET"),
        ("SharedEntry", "PUT"),
        ("SharedEntry", "DELETE"),
        ("RunMessages", "GET"),
        ("RunMessages", "POST"),
        ("ReceiveMessages", "POST"),
        ("AcknowledgeMessage", "POST"),
    }


def _views(patterns: Any) -> Any:
    for entry in patterns:
        if isinstance(entry, URLResolver):
            yield from _views(entry.url_patterns)
        elif isinstance(entry, URLPattern) and hasattr(entry.callback, "cls"):
            yield entry.callback


def test_it_is_not_given_the_answer_that_another_agent_got(key_of: Callable[[str], Api]) -> None:
    ada, bob = key_of("ada"), key_of("bob")
    once = {"Idempotency_Key": "the-same"}
    assert bob("POST", "/agents/bob/sessions", {}, **once).status_code == 201
    assert ada("POST", "/agents/bob/sessions", {}, **once).status_code == 404


def test_it_cannot_revive_an_agent_that_was_stopped(api: Api, key_of: Callable[[str], Api]) -> None:
    ada = key_of("ada")
    assert api("DELETE", "/agents/ada").status_code == 202
    body = {"name": "ada", "kind": "remote", "capabilities": ["echo"]}
    assert ada("POST", "/agents", body).status_code == 200
    assert ada("POST", "/agents/ada/sessions", {}).status_code == 409


def test_a_late_report_of_its_own_is_a_conflict_not_a_stranger(
    api: Api, key_of: Callable[[str], Api]
) -> None:
    ada, bob = key_of("ada"), key_of("bob")
    api("POST", "/tasks", {**ECHO, "retry": {"limit": 1, "initial_s": 0}})
    task = claimed(ada, begun(ada, "ada"))
    error = {"type": "oops", "message": "no luck", "retryable": True}
    failed = {"fence": task["fence"], "status": "failed", "error": error}
    assert ada("POST", f"/tasks/{task['id']}/report", failed).status_code == 204
    assert ada("POST", f"/tasks/{task['id']}/report", failed).status_code == 409
    assert bob("POST", f"/tasks/{task['id']}/report", failed).status_code == 404


def test_an_agent_key_without_an_agent_stays_possible(
    api: Api, make_api: Callable[..., Api], session_id: str, project: Project
) -> None:
    plain = make_api("agent")
    api("POST", "/tasks", ECHO)
    task = claimed(plain, session_id)
    report = {"fence": task["fence"], "status": "completed", "result": 1}
    assert plain("POST", f"/tasks/{task['id']}/report", report).status_code == 204
    assert keys.verify(plain.key).agent_id is None
