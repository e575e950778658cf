"""Requests that no client library would send, byte by byte to a real web server."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from opscore.api.asgi import Application
from opscore.config import load_config
from tasks.models import Task
from tests.live_server import Server

pytestmark = pytest.mark.django_db(transaction=True)
MEMBERS = {"type", "title", "status", "code", "detail", "request_id", "errors"}
JSON = b"Content-Type: application/json\r\n"
BODY = b'{"capability": "x"}'
WHOLE = JSON + b"Content-Length: 19\r\n"
CHUNKED = JSON + b"Transfer-Encoding: chunked\r\n"
CHUNK = b"10000\r\n" + b"x" * 65536 + b"\r\n"
TASKS = "/api/v1/tasks"


class Wire:
    """Sends bytes as they are."""

    def __init__(self, server: Server) -> None:
        self.address = urlsplit(server.url)
        self.key = server.key

    def __call__(self, method: str, path: str, headers: bytes = b"", *body: bytes) -> Answer:
        """Send a request with the key; the body in parts, until the server has heard enough."""
        line = f"{method} {path} HTTP/1.1\r\nConnection: close\r\nHost: localhost\r\n"
        key = f"Authorization: Bearer {self.key}\r\nX-Request-ID: mine\r\n"
        return self.raw((line + key).encode("latin-1") + headers + b"\r\n", *body)

    def raw(self, *parts: bytes) -> Answer:
        """Send nothing else."""
        place = (str(self.address.hostname), int(self.address.port or 0))
        with socket.create_connection(place, timeout=20) as line:
            try:
                for part in parts:
                    line.sendall(part)
            except (BrokenPipeError, ConnectionResetError):
                pass
            return Answer(b"".join(_received(line)))


class Answer:
    """What came back."""

    def __init__(self, text: bytes) -> None:
        self.head, _, self.body = text.partition(b"\r\n\r\n")
        found = re.match(rb"HTTP/1\.[01] (\d{3})", self.head)
        assert found is not None, text
        self.status = int(found[1])

    def problem(self) -> dict[str, Any]:
        """Check the shape of an error and return it."""
        assert b"content-type: application/problem+json" in self.head
        assert b"location:" not in self.head.lower()
        said: dict[str, Any] = json.loads(self.body)
        assert set(said) == MEMBERS
        assert said["status"] == self.status
        assert f"x-request-id: {said['request_id']}".encode() in self.head
        return said


def _received(line: socket.socket) -> Iterator[bytes]:
    try:
        while part := line.recv(65536):
            yield part
    except ConnectionResetError:
        return


@pytest.fixture
def wire(server: Server) -> Wire:
    return Wire(server)


@pytest.mark.parametrize(
    ("status", "code", "method", "path"),
    [
        (400, "invalid", "GET", f"{TASKS}?capability=%ff"),
        (400, "invalid", "GET", f"{TASKS}?%ed%a0%80=1"),
        (400, "invalid", "GET", "/api/v1/agents/%ff"),
        (400, "invalid", "PUT", "/secrets/%c3%28"),
        (400, "invalid", "GET", "/api/v1/agents/%00"),
        (400, "invalid", "GET", f"{TASKS}?a=%"),
        (400, "invalid", "GET", f"{TASKS}?%zz"),
        (400, "invalid", "GET", f"{TASKS}?limit=1&limit=2"),
        (400, "invalid", "GET", f"{TASKS}?{'&'.join(f'a{n}=1' for n in range(1500))}"),
        (414, "too_long", "GET", "/api/v1/agents/" + "x" * 20_000),
        (414, "too_long", "GET", f"{TASKS}?capability=" + "x" * 20_000),
        (404, "not_found", "GET", "/api/v1/agents/" + "x" * 15_000),
        (404, "not_found", "GET", "/" + "x" * 15_000),
        (404, "not_found", "GET", "/api/v1/tasks/%"),
        (404, "not_found", "GET", "/api/v1/agents/%0d%0aX-Evil:%201"),
        (404, "not_found", "GET", "/api/v1/../admin/"),
        (404, "not_found", "GET", "//admin/"),
        (404, "not_found", "GET", "//evil.example/%2e%2e"),
        (404, "not_found", "GET", "/API/V1/tasks"),
        (404, "not_found", "GET", "/api/v1/tasks;x=y"),
        (404, "not_found", "OPTIONS", "*"),
        (404, "not_found", "TRACE", "/api/v1/tasks/"),
        (405, "method_not_allowed", "TRACE", TASKS),
        (405, "method_not_allowed", "CONNECT", TASKS),
        (405, "method_not_allowed", "OPTIONS", "/api/v1/docs"),
        (405, "method_not_allowed", "BREW", TASKS),
    ],
)
def test_odd_addresses_and_methods_have_the_one_shape(
    wire: Wire, status: int, code: str, method: str, path: str
) -> None:
    answer = wire(method, path)
    assert answer.status == status
    assert answer.problem()["code"] == code
    assert len(answer.body) < 5_000
    assert b"x-evil" not in answer.head.lower()


def test_head_of_an_error_has_no_body(wire: Wire) -> None:
    for path, status in (("/api/v1/agents/%ff", 400), ("/api/v1/nothing", 404)):
        answer = wire("HEAD", path)
        assert (answer.status, answer.body) == (status, b"")


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (400, CHUNKED, [b"zz\r\nhello\r\n"]),
        (400, CHUNKED, [b"-5\r\nhello\r\n0\r\n\r\n"]),
        # Two lengths: what one server takes for a body, another one takes for a request.
        (400, WHOLE + b"Transfer-Encoding: chunked\r\n", [BODY]),
        (413, CHUNKED, [CHUNK] * 160),
        (413, JSON + b"Content-Length: 10485760\r\n", [b"x" * 65536] * 160),
        (413, JSON + b"Content-Length: 99999999999999\r\n", [b"x"]),
        (415, WHOLE + b"Content-Encoding: gzip\r\n", [BODY]),
        (415, b"Content-Type: text/html\r\nContent-Length: 19\r\n", [BODY]),
        (415, WHOLE + b"Content-Type: text/plain\r\n", [BODY]),
        (415, b"Content-Type: \xff\xfe\r\nContent-Length: 19\r\n", [BODY]),
        (400, WHOLE + b"Idempotency-Key: \xff\xfe\r\n", [BODY]),
        (400, WHOLE + b"Idempotency-Key: " + b"k" * 300 + b"\r\n", [BODY]),
        (401, WHOLE + b"Authorization: Bearer another\r\n", [BODY]),
    ],
)
def test_odd_bodies_and_headers_have_the_one_shape_and_store_nothing(
    wire: Wire, status: int, headers: bytes, body: list[bytes]
) -> None:
    answer = wire("POST", TASKS, headers, *body)
    assert answer.status == status
    answer.problem()
    assert not Task.objects.exists()


@pytest.mark.parametrize(
    "request_head",
    [
        b"POST /tasks HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /tasks HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /tasks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET /tasks HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n",
        b"GET /tasks HTTP/1.1\r\nHost: a\r\nX-A: a\r\n folded\r\n\r\n",
        b"GET /tasks HTTP/1.1\r\nHost: a\r\nX-A: a\x00b\r\n\r\n",
        b"GET /tasks\xe9 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /tasks HTTP/9.9\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 300 + b"\r\n",
    ],
)
def test_what_is_no_http_is_refused_without_a_body_by_the_server_in_front(
    wire: Wire, request_head: bytes
) -> None:
    answer = wire.raw(request_head)
    assert answer.status in {400, 414, 431}
    assert answer.body == b""


def test_broken_header_that_asks_for_nothing_changes_nothing(wire: Wire) -> None:
    harmless = (
        b"Accept: text/html",
        b"Accept: ;;;\xff",
        b"Range: bytes=0-",
        b"X-HTTP-Method-Override: DELETE",
        b"X-Forwarded-For: \xff, evil",
        b"Cookie: " + b"a=b;" * 3000,
        b"Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )
    for header in harmless:
        answer = wire("GET", TASKS, header + b"\r\n")
        assert answer.status == 200, header
        assert b"content-type: application/json" in answer.head


@pytest.mark.parametrize("host", [b"", b"Host: \r\n", b"Host: <script>\r\n", b"Host: a b@c\r\n"])
def test_bad_host_opens_no_page_and_shows_no_traceback(wire: Wire, host: bytes) -> None:
    answer = wire.raw(b"GET /admin/login/ HTTP/1.1\r\nConnection: close\r\n" + host + b"\r\n")
    assert answer.status == 400
    assert answer.body.startswith(b"Ops-Core has no pages under this host name")
    key = f"Authorization: Bearer {wire.key}\r\n\r\n".encode()
    head = b"GET /api/v1/tasks HTTP/1.1\r\nConnection: close\r\n"
    assert wire.raw(head + host + key).status == 200


@pytest.mark.parametrize(
    "address", ["/tasks/health", "/api/v1/x/ready", "/health/", "//health", "/agents/../health"]
)
def test_no_path_is_open_because_it_ends_like_one_that_is(wire: Wire, address: str) -> None:
    head = f"GET {address} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert wire.raw(head.encode()).status == 404


def test_websocket_without_a_key_is_refused(wire: Wire) -> None:
    upgrade = (
        b"Upgrade: websocket\r\nConnection: close, Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    for path in (b"/events/stream", b"/api/v1/events/stream", b"/api/v1/tasks"):
        answer = wire.raw(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n", upgrade)
        assert answer.status == 401
        answer.problem()


def test_websocket_is_closed_where_the_server_in_front_takes_them() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/events/stream", "headers": []}

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    asyncio.run(Application()(scope, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize("path", [TASKS, "/admin/login/"])
def test_body_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("OPSCORE_BODY_TIMEOUT_S", "0.2")
    load_config.cache_clear()
    sent: list[dict[str, Any]] = []
    parts = iter([{"type": "http.request", "body": b"{", "more_body": True}])

    async def receive() -> Any:
        part = next(parts, None)
        return part or await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "scheme": "http",
    }
    asyncio.run(asyncio.wait_for(Application()(scope, receive, send), 10))
    assert sent[0]["status"] == 408
    said = json.loads(sent[1]["body"])
    assert set(said) == MEMBERS
    assert "OPSCORE_BODY_TIMEOUT_S" in said["detail"]
    load_config.cache_clear()
