"""`Idempotency-Key`: a request that is sent again is done once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
import yaml
from django.db import connection, connections
from django.urls import get_resolver
from django.utils import timezone

from opscore import keys, vault
from opscore.api.endpoint import Endpoint
from opscore.config import ROOT
from opscore.models import Event, IdempotentAnswer, Project
from tasks.models import Run, Task
from tests.round_trips import round_trips

BODY = {"capability": "echo", "inputs": {"n": 1}}


@pytest.mark.django_db
def test_same_key_and_body_gets_the_first_answer(api: Any) -> None:
    first = api("POST", "/tasks", BODY, Idempotency_Key="k1")
    again = api("POST", "/api/v1/tasks", BODY, Idempotency_Key="k1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert first["Location"] == again["Location"]
    assert again["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first
    assert Task.objects.count() == 1


@pytest.mark.django_db
def test_another_body_under_the_same_key_is_refused(api: Any) -> None:
    api("POST", "/tasks", BODY, Idempotency_Key="k1")
    answer = api("POST", "/tasks", {"capability": "other"}, Idempotency_Key="k1")
    assert answer.status_code == 422
    assert answer.json()["code"] == "idempotency_mismatch"
    assert Task.objects.count() == 1


@pytest.mark.django_db
def test_keys_belong_to_one_project_and_one_address(api: Any) -> None:
    api("POST", "/tasks", BODY, Idempotency_Key="k1")
    agent = {"name": "a", "kind": "remote"}
    assert api("POST", "/agents", agent, Idempotency_Key="k1").status_code == 201
    other = Project.objects.create(slug="other")
    _, api.key = keys.create(other, "other", ["admin"])
    assert api("POST", "/tasks", BODY, Idempotency_Key="k1").status_code == 201
    assert Task.objects.count() == 2


@pytest.mark.django_db
def test_questions_honour_it_too(api: Any) -> None:
    text = "name: x\ntasks: {a: {capability: echo}}"
    asked = {"Content_Type": "application/yaml", "Idempotency_Key": "k1"}
    for notation in ("text", "mermaid"):
        answer = api("POST", f"/workflows/graph?format={notation}", text, **asked)
        assert answer.json()["format"] == notation
    first, again = (api("POST", "/workflows/validate", text, **asked) for _ in range(2))
    assert again["Idempotency-Replayed"] == "true"
    assert again.json() == first.json()
    other = api("POST", "/workflows/validate", text.replace("x", "y"), **asked)
    assert other.status_code == 422


@pytest.mark.django_db
def test_a_claim_whose_answer_was_lost_is_answered_again(api: Any, session_id: str) -> None:
    path = f"/sessions/{session_id}/claim"
    # Nothing to have is no answer to keep.
    assert api("POST", path, {}, Idempotency_Key="k1").json() == {"tasks": []}
    made = api("POST", "/tasks", BODY).json()
    first, again = (api("POST", path, {}, Idempotency_Key="k1") for _ in range(2))
    assert first.json()["tasks"][0]["id"] == made["id"]
    assert again.json() == first.json()
    done = {"fence": 1, "status": "completed"}
    report = f"/tasks/{made['id']}/report"
    told = [api("POST", report, done, Idempotency_Key="k2").status_code for _ in range(2)]
    assert told == [204, 204]


@pytest.mark.django_db
def test_what_a_claim_answers_is_kept_encrypted(
    api: Any, project: Project, session_id: str
) -> None:
    vault.put(project, "TOKEN", "s3cr3t-of-the-house")
    flow = {
        "name": "x",
        "tasks": {"a": {"capability": "echo", "with": {"t": "${{ secrets.TOKEN }}"}}},
    }
    assert api("POST", "/workflows", flow).status_code == 201
    assert api("POST", "/workflows/x/execute", {}).status_code == 201
    path = f"/sessions/{session_id}/claim"
    first, again = (api("POST", path, {}, Idempotency_Key="k1") for _ in range(2))
    assert first.json()["tasks"][0]["inputs"] == {"t": "s3cr3t-of-the-house"}
    assert again.json() == first.json()
    assert "s3cr3t" not in str(IdempotentAnswer.objects.values_list().last())


@pytest.mark.django_db
def test_executors_that_send_no_key_pay_nothing(api: Any, session_id: str) -> None:
    with round_trips() as sent:
        api("POST", f"/sessions/{session_id}/claim", {})
        api("POST", f"/sessions/{session_id}/heartbeat", {})
    assert not [sql for sql in sent if "advisory" in sql or "idempotent" in sql]


@pytest.mark.django_db
def test_another_query_is_another_request(api: Any) -> None:
    definition = {"name": "one", "tasks": {"a": {"capability": "echo"}}}
    first = api("POST", "/workflows/graph?format=mermaid", definition, Idempotency_Key="k1").json()
    other = api("POST", "/workflows/graph", definition, Idempotency_Key="k1")
    assert first["format"] == "mermaid"
    assert (other.json()["format"], "Idempotency-Replayed" in other) == ("text", False)
    again = api("POST", "/workflows/graph?format=mermaid", definition, Idempotency_Key="k1")
    assert (again.json(), again["Idempotency-Replayed"]) == (first, "true")


@pytest.mark.django_db
def test_a_request_sent_again_may_ask_for_other_fields(api: Any) -> None:
    run = api("POST", "/tasks", BODY).json()["run_id"]
    api("PUT", f"/runs/{run}/cancel")
    first = api("POST", f"/runs/{run}/rerun?fields=id", {}, Idempotency_Key="k1")
    again = api("POST", f"/runs/{run}/rerun?fields=status,id", {}, Idempotency_Key="k1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert set(first.json()) == {"id"}
    assert again.json() == {"id": first.json()["id"], "status": "running"}


@pytest.mark.django_db
def test_what_is_written_about_a_refusal_stays(api: Any) -> None:
    task = api("POST", "/tasks", BODY).json()["id"]
    late = {"fence": 7, "status": "completed"}
    for report, status in ((late, 409), ({**late, "status": "dnoe"}, 400)):
        answer = api("POST", f"/tasks/{task}/report", report, Idempotency_Key="k1")
        assert answer.status_code == status
    noted = Event.objects.filter(task_id=task, kind__startswith="report.")
    assert sorted(noted.values_list("kind", flat=True)) == ["report.invalid", "report.refused"]


@pytest.mark.django_db
def test_a_refused_request_frees_its_key(api: Any) -> None:
    assert api("POST", "/tasks", {}, Idempotency_Key="k1").status_code == 400
    assert api("POST", "/tasks", BODY, Idempotency_Key="k1").status_code == 201


@pytest.mark.django_db(transaction=True)
def test_a_failed_request_leaves_nothing_and_frees_its_key(api: Any) -> None:
    def broken(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith('INSERT INTO "opscore_idempotentanswer"'):
            raise ZeroDivisionError
        return execute(sql, *rest)

    with connection.execute_wrapper(broken):
        assert api("POST", "/tasks", BODY, Idempotency_Key="k1").status_code == 500
    # The task was written before the answer: both were rolled back.
    assert not Task.objects.exists()
    assert not Run.objects.exists()
    assert api("POST", "/tasks", BODY, Idempotency_Key="k1").status_code == 201
    assert Task.objects.count() == 1


@pytest.mark.django_db
def test_an_answer_is_forgotten_after_its_time(api: Any) -> None:
    first = api("POST", "/tasks", BODY, Idempotency_Key="k1").json()
    IdempotentAnswer.objects.update(created_at=timezone.now() - timedelta(hours=25))
    again = api("POST", "/tasks", BODY, Idempotency_Key="k1")
    assert again.status_code == 201
    assert again.json()["id"] != first["id"]


@pytest.mark.django_db
@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é"])
def test_a_key_that_is_no_key_is_refused(api: Any, key: str) -> None:
    assert api("POST", "/tasks", BODY, Idempotency_Key=key).status_code == 400
    assert not Task.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_request_whose_twin_still_runs_is_asked_to_come_again(api: Any) -> None:
    def hold(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith('INSERT INTO "opscore_idempotentanswer"'):
            twin = _in_thread(lambda: api("POST", "/tasks", BODY, Idempotency_Key="k1"))
            assert twin.status_code == 409
            assert twin.json()["code"] == "idempotency_in_use"
            assert twin["Retry-After"] == "1"
        return execute(sql, *rest)

    with connection.execute_wrapper(hold):
        assert api("POST", "/tasks", BODY, Idempotency_Key="k1").status_code == 201
    assert Task.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_many_requests_at_once_with_one_key_make_one_task(api: Any) -> None:
    start = Barrier(8)

    def post() -> Any:
        start.wait()
        while True:
            answer = api("POST", "/tasks", BODY, Idempotency_Key="k1")
            if answer.status_code != 409:
                return answer

    with ThreadPoolExecutor(8) as pool:
        answers = [turn.result() for turn in [pool.submit(_closing(post)) for _ in range(8)]]
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer for answer in answers) == 1
    assert Task.objects.count() == 1
    assert Run.objects.count() == 1


def test_every_post_honours_the_key_by_its_class() -> None:
    """The frame's class does it for all; so every view is of it, and every POST says so."""
    views = set(_views(get_resolver().url_patterns))
    assert {view for view in views if hasattr(view, "post") and not issubclass(view, Endpoint)} == (
        set()
    )
    paths = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text())["paths"]
    silent = [
        path
        for path, methods in paths.items()
        if "post" in methods
        and "Idempotency-Key"
        not in [parameter["name"] for parameter in methods["post"].get("parameters", ())]
    ]
    assert silent == []


def _views(patterns: Iterable[Any]) -> Iterator[Any]:
    for pattern in patterns:
        yield from _views(getattr(pattern, "url_patterns", ()))
        view = getattr(getattr(pattern, "callback", None), "cls", None)
        if view:
            yield view


def _in_thread(function: Any) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_closing(function)).result()


def _closing(function: Any) -> Any:
    def run() -> Any:
        try:
            return function()
        finally:
            connections.close_all()

    return run
