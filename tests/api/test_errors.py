"""One shape for every error, asked of a real web server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from opscore.api import problems
from tests.live_server import Server

pytestmark = pytest.mark.django_db(transaction=True)

MEMBERS = {"type", "title", "status", "code", "detail", "request_id", "errors"}
JSON = {"Content-Type": "application/json"}
NOBODY = "00000000-0000-0000-0000-000000000001"


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with server.client(follow_redirects=False) as client:
        yield client


@pytest.mark.parametrize("mount", ["", "/api/v1"])
@pytest.mark.parametrize(
    ("status", "method", "path", "content", "headers"),
    [
        (400, "POST", "/tasks", b"{", JSON),
        (400, "GET", "/tasks?statuss=x", b"", {}),
        (401, "GET", "/tasks", b"", {"Authorization": "Bearer nobody"}),
        (404, "GET", "/tasks/", b"", {}),
        (404, "GET", "/nothing", b"", {"Accept": "text/html"}),
        (404, "GET", f"/runs/{NOBODY}", b"", {}),
        (405, "DELETE", "/tasks", b"", {}),
        (405, "POST", "/health", b"", {}),
        (413, "POST", "/tasks", b"x" * 5_000_000, JSON),
        (415, "POST", "/tasks", b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}),
        (422, "POST", "/tasks", b'{"capability": "b"}', {**JSON, "Idempotency-Key": "used"}),
    ],
)
def test_every_error_has_one_shape(
    http: httpx.Client,
    *,
    mount: str,
    status: int,
    method: str,
    path: str,
    content: bytes,
    headers: dict[str, str],
) -> None:
    if status == 422:
        http.post("/tasks", content=b'{"capability": "a"}', headers=headers)
    answer = http.request(
        method, mount + path, content=content, headers={**headers, "X-Request-ID": "mine"}
    )
    assert answer.status_code == status, answer.text
    _check(answer)


def test_the_bare_mount_and_its_slash_are_errors_too(http: httpx.Client) -> None:
    for path in ("/api", "/api/", "/api/v1", "/api/v1/", "/api/v1/docs/", "/api/v1/schema/"):
        answer = http.get(path, headers={"X-Request-ID": "mine"})
        assert answer.status_code == 404
        _check(answer)


def test_too_many_and_our_own_faults_have_it_too() -> None:
    from rest_framework.exceptions import Throttled

    for failure in (problems.translate(Throttled(wait=3)), problems.INTERNAL):
        assert failure is not None
        assert set(failure.body()) == MEMBERS


def _check(answer: httpx.Response) -> None:
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "Location" not in answer.headers
    body: dict[str, Any] = answer.json()
    assert set(body) == MEMBERS
    assert body["status"] == answer.status_code
    assert body["request_id"] == answer.headers["X-Request-ID"] == "mine"
    assert body["detail"]
    assert isinstance(body["errors"], list)
