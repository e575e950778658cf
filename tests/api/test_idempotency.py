"""`Idempotency-Key`: a request that is sent again is done once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from django.db import connection, connections
from django.urls import get_resolver
from django.utils import timezone

from opscore import keys
from opscore.api.auth import scope_for
from opscore.models import IdempotentAnswer, Project
from tasks.models import Run, Task
from workflows.api import DrawWorkflow, ValidateWorkflow

BODY = {"capability": "echo", "inputs": {"n": 1}}
READ_ONLY = {ValidateWorkflow, DrawWorkflow}


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
def test_a_question_keeps_nothing_and_gets_its_own_answer(api: Any) -> None:
    text = "name: x\ntasks: {a: {capability: echo}}"
    asked = {"Content_Type": "application/yaml", "Idempotency_Key": "k1"}
    for notation in ("text", "mermaid"):
        answer = api("POST", f"/workflows/graph?format={notation}", text, **asked)
        assert answer.json()["format"] == notation
    for _ in range(2):
        assert "Idempotency-Replayed" not in api("POST", "/workflows/validate", text, **asked)
    assert not IdempotentAnswer.objects.exists()


@pytest.mark.django_db
def test_another_query_is_another_request(api: Any) -> None:
    queries = ("", "?a=1", "?a=2", f"?a={'x' * 500}1", f"?a={'x' * 500}2")
    made = {
        api("POST", f"/tasks{query}", BODY, Idempotency_Key="k1").json()["id"] for query in queries
    }
    assert len(made) == len(queries) == Task.objects.count()
    again = api("POST", "/tasks?a=2", BODY, Idempotency_Key="k1")
    assert again["Idempotency-Replayed"] == "true"


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


def test_every_post_of_users_honours_the_key() -> None:
    """The executor protocol is fenced instead: a repeated report or claim does no harm.

    What only answers may be asked again and again, and keeps nothing.
    """
    missing = []
    for entry in get_resolver().url_patterns:
        for pattern in getattr(entry, "url_patterns", []):
            for leaf in getattr(pattern, "url_patterns", [pattern]):
                view: Any = getattr(getattr(leaf, "callback", None), "cls", None)
                post = getattr(view, "post", None)
                if post and view not in READ_ONLY and scope_for(view, "POST") != "agent":
                    missing += [] if getattr(post, "is_idempotent", False) else [view]
    assert missing == []


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
