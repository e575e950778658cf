"""Everything that can be wrong with a request: a clear 4xx, one shape, nothing stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError, connection
from django.test import Client

from tasks.models import Task
from workflows.models import Workflow

pytestmark = pytest.mark.django_db

KEYS = {"type", "title", "status", "code", "detail", "request_id", "errors"}
VALID = """
name: hello
tasks:
  a: {capability: echo}
"""


#: An id that no row has; the same in every process, because test ids are made of it.
NOBODY = UUID(int=1)


def refused(answer: Any, status: int, code: str = "") -> dict[str, Any]:
    """Check the shape that every error has and return it."""
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert set(body) == KEYS
    assert body["status"] == status
    assert body["request_id"] == answer["X-Request-ID"]
    assert isinstance(body["detail"], str)
    assert body["detail"]
    assert not code or body["code"] == code
    assert "Traceback" not in str(body)
    return body


@pytest.mark.parametrize("mount", ["", "/api/v1"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nothing"),
        ("GET", "/agents/"),
        ("GET", "/agents/nobody"),
        ("DELETE", "/agents/nobody"),
        ("POST", "/agents/nobody/restart"),
        ("POST", "/agents/nobody/sessions"),
        ("GET", f"/tasks/{NOBODY}"),
        ("GET", "/tasks/no-uuid"),
        ("PUT", f"/tasks/{NOBODY}/cancel"),
        ("GET", f"/tasks/{NOBODY}/logs"),
        ("GET", f"/runs/{NOBODY}"),
        ("PUT", f"/runs/{NOBODY}/cancel"),
        ("GET", "/workflows/nothing"),
        ("POST", "/workflows/nothing/execute"),
        ("DELETE", f"/sessions/{NOBODY}"),
        ("POST", f"/sessions/{NOBODY}/claim"),
        ("POST", f"/sessions/{NOBODY}/heartbeat"),
    ],
)
def test_unknown_things_answer_404(api: Any, mount: str, method: str, path: str) -> None:
    refused(api(method, mount + path, {} if method == "POST" else None), 404, "not_found")


def test_a_name_that_is_close_is_suggested(api: Any, agent: dict[str, Any]) -> None:
    assert "echo-1" in refused(api("GET", "/agents/echo-2"), 404)["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("PATCH", "/agents"), ("PUT", "/tasks"), ("DELETE", "/runs"), ("POST", "/health")],
)
def test_wrong_method_answers_405_and_says_what_is_allowed(
    api: Any, method: str, path: str
) -> None:
    answer = api(method, path)
    refused(answer, 405, "method_not_allowed")
    assert "GET" in answer["Allow"]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"[]",
        b'"text"',
        b"null",
        b'{"capability": "a", "inputs": {"x": NaN}}',
        b'{"capability": "a", "inputs": {"x": 1e999}}',
        b'{"capability": "a", "inputs": {"x": Infinity}}',
        b'{"capability": "a", "inputs": {"x": "\xff"}}',
        b'{"capability": "a", "inputs": {"x": "\\u0000"}}',
        b'{"capability": "a", "inputs": {"\\u0000": 1}}',
        b'{"capability": "a", "inputs": {"x": "\xc3\xa9\\u0000"}}',
        b'{"capability": "a", "inputs": {"x": "\\ud800"}}',
        b'{"capability": "a", "inputs": ' + b"[" * 100_000 + b"}",
        b'{"capability": "a", "inputs": {"x": ' + b"[" * 70 + b"]" * 70 + b"}}",
        b'{"capability": "a", "inputs": {"x": ' + b"9" * 5000 + b"}}",
        b'{"capability": "a", "priority": 1' + b"0" * 30 + b"}",
        b'{"capability": "a", "priority": 10}',
        b'{"capability": "a", "priority": -1}',
        b'{"capability": "a", "timeout_s": -1}',
        b'{"capability": "a", "timeout_s": 1e400}',
        b'{"capability": "a", "retry": {"limit": -1}}',
        b'{"capability": "a", "retry": {"limt": 1}}',
        b'{"capability": "a", "inputs": []}',
        b'{"capability": ""}',
        b'{"capability": "' + b"a" * 81 + b'"}',
        b'{"capability": ["a"]}',
        b'{"capabilty": "a"}',
        b'{"capability": 5}',
        b'{"capability": "a", "priority": "7"}',
        b'{"capability": "a", "priority": true}',
        b'{"capability": "a", "timeout_s": "60"}',
        b'{"capability": "a", "timeout_s": 0}',
        b'{"capability": "a", "requires": [5]}',
        b'{"capability": "a", "retry": {"limit": false}}',
        b'{"capability": "a", "capability": "b"}',
        b'{"capability": "a", "inputs": {"x": [{"y": 1, "y": 1}]}}',
    ],
)
def test_bodies_that_are_not_valid_answer_400_and_store_nothing(api: Any, body: bytes) -> None:
    refused(api("POST", "/tasks", body), 400, "invalid")
    assert not Task.objects.exists()


def test_all_problems_of_a_body_are_named_at_once(api: Any) -> None:
    body = {"capabilty": "a", "priority": 10, "retry": {"limit": -1, "factr": 2}}
    problems = refused(api("POST", "/tasks", body), 400)["errors"]
    paths = {problem["path"] for problem in problems}
    assert paths == {"capabilty", "capability", "priority", "retry.limit", "retry.factr"}
    assert "did you mean 'capability'?" in str(problems)


def test_value_of_another_json_type_is_named_with_the_type_that_is_expected(
    api: Any, session_id: str
) -> None:
    body = {"capability": 5, "priority": "7", "requires": ["a", 1], "retry": {"limit": "3"}}
    problems = refused(api("POST", "/tasks", body), 400)["errors"]
    assert {problem["path"]: problem["message"] for problem in problems} == {
        "capability": "must be text",
        "priority": "must be a number",
        "requires[1]": "must be text",
        "retry.limit": "must be a number",
    }
    # False is the number 0 in Python, and the id 0.
    held = {"tasks": [{"id": False, "fence": 0}]}
    refused(api("POST", f"/sessions/{session_id}/heartbeat", held), 400)
    refused(api("POST", f"/sessions/{session_id}/claim", {"wait_s": False}), 400)
    refused(api("PUT", f"/runs/{NOBODY}/cancel", {"force": "no"}), 404)
    task = api("POST", "/tasks", {"capability": "nobody"}).json()
    refused(api("PUT", f"/runs/{task['run_id']}/cancel", {"force": "no"}), 400)


def test_deep_but_allowed_and_odd_but_valid_values_come_back_as_they_were(api: Any) -> None:
    inputs = {"n": 2**70, "t": "é\U0001f600 \\u0000", "d": [[[[[{"x": None}]]]]], "f": 0.1}
    task = api("POST", "/tasks", {"capability": "a", "inputs": inputs}).json()
    assert api("GET", f"/tasks/{task['id']}").json()["inputs"] == inputs


def test_wrong_media_type_answers_415(api: Any) -> None:
    refused(api("POST", "/tasks", "a=b", Content_Type="application/x-www-form-urlencoded"), 415)
    refused(api("POST", "/workflows", VALID, Content_Type="text/plain"), 415)


def test_body_over_the_limit_answers_413(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"capability": "a", "inputs": {"x": "y" * 5_000_000}}
    detail = refused(api("POST", "/tasks", body), 413, "too_large")["detail"]
    assert "4194304" in detail
    assert not Task.objects.exists()


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=201",
        "limit=x",
        "limit=%D9%A3",
        "limit=1&limit=2",
        "status=queued&status=queued",
        "after=x",
        "stats=running",
        "status=wibble",
        "run=x",
        "run=",
        "status=",
        "capability=%00",
    ],
)
def test_lists_refuse_what_they_do_not_know(api: Any, query: str) -> None:
    refused(api("GET", f"/tasks?{query}"), 400, "invalid")


@pytest.mark.parametrize(
    "path",
    [
        "/schedules?paused=maybe",
        "/schedules?paused=",
        "/events?task=",
        "/agents?kind=",
        "/runs?parent=",
        "/tasks/{task}/logs?attempt=0.5",
        "/tasks/{task}/logs?attempt=",
    ],
)
def test_filter_that_would_be_overlooked_is_refused(api: Any, path: str) -> None:
    task = api("POST", "/tasks", {"capability": "nobody"}).json()["id"]
    [problem] = refused(api("GET", path.format(task=task)), 400, "invalid")["errors"]
    assert f"{problem['path']}=" in path
    assert api("GET", "/schedules?paused=true").status_code == 200
    for attempt in (1, -1, 10**20):
        assert api("GET", f"/tasks/{task}/logs?attempt={attempt}&stream=").status_code == 200


def test_misspelt_parameter_is_suggested(api: Any) -> None:
    body = refused(api("GET", "/tasks?statuss=running"), 400)
    assert "did you mean 'status'?" in body["errors"][0]["message"]


def test_cancel_of_a_finished_task_answers_409(api: Any) -> None:
    task = api("POST", "/tasks", {"capability": "nobody"}).json()
    assert api("PUT", f"/tasks/{task['id']}/cancel").status_code == 200
    refused(api("PUT", f"/tasks/{task['id']}/cancel"), 409, "conflict")
    refused(api("PUT", f"/runs/{task['run_id']}/cancel"), 409, "conflict")


def test_invalid_definition_answers_400_with_every_problem(api: Any) -> None:
    text = (
        "name: x\ntasks:\n  a:\n    capabilty: echo\n  b:\n    capability: echo\n    needs: [c]\n"
    )
    for path in ("/workflows", "/workflows/validate"):
        body = refused(api("POST", path, text, Content_Type="application/yaml"), 400, "invalid")
        assert len(body["errors"]) >= 2
        assert {problem["line"] for problem in body["errors"]} >= {4, 7}
        assert all(problem["path"].startswith("tasks.") for problem in body["errors"])
    assert not Workflow.objects.exists()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"\xff\xfe", "application/yaml"),
        (b"a: &a [x]\nb: &b [*a,*a,*a]\nc: [*b,*b,*b]", "application/yaml"),
        (b"[" * 10_000, "application/json"),
        (b"{}", "application/json"),
        (b"name: a\nname: b", "text/yaml"),
        (b'name: "\\0"\ntasks: {a: {capability: x}}', "application/x-yaml"),
        (b"", "application/yaml"),
        (b'{"name": "a", "tasks": {"\\udfff": 1}}', "application/json"),
        (b'{"\\udfff": ' + b"[" * 40 + b"]" * 40 + b"}", "application/json"),
    ],
)
def test_definitions_that_are_no_definitions_answer_400(api: Any, body: bytes, kind: str) -> None:
    refused(api("POST", "/workflows", body, Content_Type=kind), 400, "invalid")
    assert not Workflow.objects.exists()


def test_inputs_that_fail_the_schema_answer_400_with_the_path(api: Any) -> None:
    text = (
        "name: sum\ninputs:\n  type: object\n  properties: {n: {type: integer}}\n  required: [n]\n"
        "tasks:\n  a: {capability: echo}\n"
    )
    assert api("POST", "/workflows", text, Content_Type="application/yaml").status_code == 201
    body = refused(api("POST", "/workflows/sum/execute", {"inputs": {"n": "x"}}), 400, "invalid")
    assert any("n" in problem["path"] for problem in body["errors"])
    refused(api("POST", "/workflows/sum/execute", {}), 400, "invalid")
    refused(api("POST", "/workflows/sum/execute", {"inputs": {"n": 1}, "version": "9"}), 404)


def test_api_paths_never_redirect_and_ask_for_no_csrf_token(make_api: Callable[..., Any]) -> None:
    api = make_api("admin")
    api.client = Client(enforce_csrf_checks=True, raise_request_exception=False)
    assert api("POST", "/tasks", {"capability": "a"}).status_code == 201
    for path in ("/agents/", "/api/v1", "/api/v1/", "/api/v1/agents/"):
        refused(api("GET", path), 404)


def test_answer_is_json_whatever_the_client_accepts(api: Any) -> None:
    answer = api("GET", "/agents", Accept="text/html")
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/json"


def test_a_database_that_is_away_answers_503(api: Any) -> None:
    def away(*_: Any) -> Any:
        raise OperationalError("connection refused: secret-host")

    with connection.execute_wrapper(away):
        answer = api("GET", "/agents")
    body = refused(answer, 503, "unavailable")
    assert answer["Retry-After"] == "1"
    assert "secret-host" not in body["detail"]


def test_a_fault_of_ours_answers_500_and_is_logged_under_its_request_id(
    api: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("secret detail")

    with connection.execute_wrapper(broken):
        body = refused(api("GET", "/agents", X_Request_ID="find-me"), 500, "internal")
    assert body["request_id"] == "find-me"
    assert "secret" not in str(body)
    assert "secret detail" in caplog.text


def test_request_id_is_taken_only_when_it_is_sane(api: Any) -> None:
    assert api("GET", "/health", X_Request_ID="abc-1")["X-Request-ID"] == "abc-1"
    for bad in ("a b", "x" * 101, "<script>", "é"):
        assert api("GET", "/health", X_Request_ID=bad)["X-Request-ID"] != bad


def test_answer_is_short_however_long_the_wrong_value_is(api: Any) -> None:
    digits = "name: " + "9" * 100_000
    for text in (digits, f"name: a\n{'k' * 900}: {{<<: 1}}\n{'x' * 100_000}"):
        answer = api("POST", "/workflows/validate", text, Content_Type="application/yaml")
        refused(answer, 400, "invalid")
        assert len(answer.content) < 5_000


def test_many_unknown_fields_are_named_in_a_short_answer(api: Any) -> None:
    body = {f"{'x' * 10_000}{number}": 1 for number in range(100)}
    answer = api("POST", "/tasks", {"capability": "x", **body})
    problems = refused(answer, 400)["errors"]
    assert len(answer.content) < 10_000
    assert problems[-1]["message"] == "and 80 more unknown fields" or any(
        problem["message"] == "and 80 more unknown fields" for problem in problems
    )
