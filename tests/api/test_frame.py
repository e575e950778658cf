"""The parts of the frame that are easier to see from inside."""

from __future__ import annotations

import asyncio
from threading import Event
from typing import Any

import psycopg
import pytest
from django.core.exceptions import PermissionDenied, SuspiciousOperation, ValidationError
from django.db.utils import DataError, InterfaceError
from django.http import Http404
from django.test import RequestFactory
from rest_framework import exceptions
from rest_framework.response import Response

from opscore.api import problems
from opscore.api.parsers import parse_json
from opscore.api.waiting import WaitingEndpoint
from opscore.config import load_config
from opscore.database import query
from opscore.errors import ForbiddenError, InvalidError, Problem, UnavailableError


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Http404(), 404, "not_found"),
        (PermissionDenied(), 403, "forbidden"),
        (SuspiciousOperation("x"), 400, "invalid"),
        (DataError("integer out of range"), 400, "invalid"),
        (ValidationError(["a", "b"]), 400, "invalid"),
        (InterfaceError("closed"), 503, "unavailable"),
        (UnavailableError(), 503, "unavailable"),
        (ForbiddenError(), 403, "forbidden"),
        (exceptions.NotAuthenticated(), 401, "unauthorized"),
        (exceptions.Throttled(wait=7), 429, "throttled"),
    ],
)
def test_every_kind_of_error_has_its_answer(error: Exception, status: int, code: str) -> None:
    failure = problems.translate(error)
    assert failure is not None
    body = failure.body()
    assert (body["status"], body["code"]) == (status, code)
    assert body["detail"]
    retry = failure.headers.get("Retry-After")
    assert retry == {503: "1", 429: "7"}.get(status)
    assert ("WWW-Authenticate" in failure.headers) == (status == 401)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "9" * 5000])
def test_numbers_that_nobody_else_can_read_are_refused(number: str) -> None:
    with pytest.raises(InvalidError):
        parse_json(f'{{"x": [{number}]}}')


def test_nested_problems_have_paths() -> None:
    detail: Any = {
        "retry": {"limit": ["too low"]},
        "tasks": [{}, {"id": ["bad"]}],
        "non_field_errors": ["x"],
    }
    failure = problems.translate(exceptions.ValidationError(detail))
    assert failure is not None
    assert failure.problems == (
        Problem("too low", "retry.limit"),
        Problem("bad", "tasks[1].id"),
        Problem("x"),
    )
    lines = problems.translate(InvalidError("bad", [Problem("x", "tasks.a", 3)]))
    assert lines is not None
    assert lines.body()["errors"] == [{"message": "x", "path": "tasks.a", "line": 3}]


def test_what_was_taken_for_a_client_that_left_is_undone() -> None:
    called, may_answer, undone = Event(), Event(), Event()

    class Slow(WaitingEndpoint):
        authentication_classes = []
        permission_classes = []

        def get(self, request: Any) -> Response:
            called.set()
            assert may_answer.wait(10)
            response = Response({})
            response.undo = undone.set  # type: ignore[attr-defined]
            return response

    async def leave() -> None:
        waiting = asyncio.ensure_future(Slow.as_view()(RequestFactory().get("/x")))
        await asyncio.to_thread(called.wait, 10)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not undone.is_set()
        may_answer.set()
        assert await asyncio.to_thread(undone.wait, 10)

    asyncio.run(leave())


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_died_while_idle_costs_nobody_an_error(api: Any) -> None:
    assert api("GET", "/tasks").status_code == 200
    [row] = query("SELECT pg_backend_pid() AS pid", {})
    url = load_config().service_url("database_url")
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [row["pid"]])
    assert api("GET", "/tasks").status_code == 200
    assert query("SELECT pg_backend_pid() AS pid", {}) != [row]
