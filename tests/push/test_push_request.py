"""One request to a real server: signed, bounded, never redirected, never rebound."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from agents.endpoints import Target, may_be_sent_to
from opscore.config import load_config
from tasks import push_request
from tasks.push_request import Answer, Dialler, judged, least_loaded
from tests.push.stub import StubAgent, running

pytestmark = pytest.mark.usefixtures("loopback")


class FakeTask:
    """What the request reads of a claimed attempt."""

    id = UUID(int=7)
    run_id = UUID(int=8)
    project_id = 1
    fence = 3
    traceparent = f"00-{UUID(int=8).hex}-5f3a5f3a5f3a5f3a-01"

    def as_dict(self) -> dict[str, Any]:
        return {"id": str(self.id), "fence": 3, "inputs": {"n": 1}, "idempotency_key": "key/2"}


TASK: Any = FakeTask()


@pytest.fixture
def stub() -> Iterator[StubAgent]:
    with running(StubAgent()) as agent:
        yield agent


def target(url: str, **options: Any) -> Target:
    fields: dict[str, Any] = {
        "agent_id": UUID(int=1),
        "name": "ann",
        "project_id": 1,
        "capabilities": ["echo"],
        "url": url,
        "health_path": "",
        "concurrency": 1,
        "timeout_s": 5.0,
        "nonce": "n",
        "paused": False,
        "places": None,
        "status": "active",
        "session_id": UUID(int=2),
    }
    return Target(**{**fields, **options})


def push(to: Target, resolver: Any = None) -> Answer:
    async def once() -> Answer:
        dialler = Dialler(to, resolver)
        try:
            return await dialler.push(to, TASK)
        finally:
            await dialler.close()

    return asyncio.run(once())


def probe(to: Target) -> str:
    async def once() -> str:
        dialler = Dialler(to)
        try:
            return await dialler.probe(to)
        finally:
            await dialler.close()

    return asyncio.run(once())


def test_request_is_signed_and_says_what_it_belongs_to(
    stub: StubAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_config(), "public_url", "http://ops.example/")
    to = target(stub.url)
    stub.secret = to.secret
    assert push(to) == Answer("completed", result={"n": 1})
    assert stub.forged == 0
    [headers], [body] = stub.headers, stub.received
    assert headers["Idempotency-Key"] == "key/2"
    assert headers["Opscore-Attempt"] == f"{UUID(int=7)}/3"
    version, trace, span, flags = headers["traceparent"].split("-")
    assert (version, trace, len(span), flags) == ("00", UUID(int=8).hex, 16, "01")
    assert headers["Host"] == f"127.0.0.1:{stub.port}"
    assert body["callback"]["url"] == f"http://ops.example/api/v1/tasks/{UUID(int=7)}/report"
    assert body["callback"]["key"].startswith("oa_1_")
    assert (body["agent"], body["inputs"]) == ("ann", {"n": 1})


def test_another_secret_gives_another_signature(stub: StubAgent) -> None:
    stub.secret = "somebody else's"
    push(target(stub.url))
    assert stub.forged == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(stub: StubAgent, status: int) -> None:
    with running(StubAgent()) as inside:
        stub.behaviour = lambda task: (status, {}, {"Location": inside.url})
        answer = push(target(stub.url))
        assert (answer.error["type"], answer.error["retryable"]) == ("redirect", False)
        assert inside.received == []


def test_name_that_is_rebound_is_asked_for_once(
    stub: StubAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address that was checked is the one that is connected to."""
    monkeypatch.setattr(load_config(), "push_networks", "127.0.0.1/32")
    answers = iter([["127.0.0.1"], ["169.254.169.254"]])
    asked: list[str] = []

    def resolver(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    to = target(f"http://rebound.example:{stub.port}/work")
    assert push(to, resolver).kind == "completed"
    assert stub.headers[0]["Host"] == f"rebound.example:{stub.port}"
    refused = push(to, resolver)
    assert (refused.kind, len(stub.received)) == ("unsent", 1)
    assert "not public" in refused.reason
    assert asked == ["rebound.example"] * 2


def test_address_that_became_private_is_sent_nothing(
    stub: StubAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_config(), "push_networks", "")
    for host in ("127.0.0.1", "127.1", "2130706433", "localhost"):
        answer = push(target(f"http://{host}:{stub.port}/work"))
        assert (answer.kind, answer.reached) == ("unsent", False), host
        assert "not public" in probe(target(f"http://{host}:{stub.port}/work"))
    assert stub.received == []


def test_next_address_of_a_name_is_tried(stub: StubAgent) -> None:
    to = target(f"http://two.example:{stub.port}/work")
    assert push(to, lambda host, port: ["127.0.0.9", "127.0.0.1"]).kind == "completed"


def test_proxies_of_the_environment_are_not_used(
    stub: StubAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert push(target(stub.url)).kind == "completed"


def test_agent_that_is_not_there_was_sent_nothing() -> None:
    with running(StubAgent()) as stub:
        url = stub.url
    answer = push(target(url))
    assert (answer.kind, answer.reached, answer.hold_s) == ("unsent", False, 1.0)
    nowhere = push(target("http://no-such-host.invalid/"))
    assert nowhere.kind == "unsent"


def test_agent_that_hangs_up_is_lost(stub: StubAgent) -> None:
    stub.behaviour = lambda task: (0,)
    answer = push(target(stub.url))
    assert (answer.kind, answer.reached) == ("lost", False)
    assert "the connection broke" in answer.reason


def test_answer_that_never_comes_is_a_timeout(stub: StubAgent) -> None:
    import threading

    gate = threading.Event()
    stub.behaviour = lambda task: (gate.wait(20), 200, {})[1:]
    answer = push(target(stub.url, timeout_s=0.2))
    gate.set()
    assert (answer.kind, answer.error["type"]) == ("failed", "timeout")


def test_endless_answer_is_cut_off(stub: StubAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_config(), "max_body_bytes", 1000)
    stub.behaviour = lambda task: (200, b"x" * 100_000)
    answer = push(target(stub.url))
    assert (answer.error["type"], answer.error["retryable"]) == ("result_too_large", False)


def test_packed_answer_is_not_unpacked(stub: StubAgent) -> None:
    packed = gzip.compress(b"0" * 1_000_000)
    stub.behaviour = lambda task: (200, packed, {"Content-Encoding": "gzip"})
    answer = push(target(stub.url))
    assert (answer.error["type"], answer.error["retryable"]) == ("invalid_answer", False)
    assert "packed (gzip)" in answer.error["message"]
    stub.behaviour = lambda task: (503, packed, {"Content-Encoding": "gzip"})
    assert push(target(stub.url)).kind == "unsent"


def test_time_of_an_answer_begins_when_the_request_goes_out(stub: StubAgent) -> None:
    def slow(host: str, port: int) -> list[str]:
        time.sleep(0.4)
        return ["127.0.0.1"]

    to = target(f"http://slow.example:{stub.port}/work", timeout_s=0.3)
    assert push(to, slow).kind == "completed"


def test_agent_that_takes_no_connection_is_unsent_however_short_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(push_request, "CONNECT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        port = deaf.getsockname()[1]
        # What its backlog takes; the next one is not answered at all.
        callers = [socket.socket() for _ in range(3)]
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(("127.0.0.1", port))
        answer = push(target(f"http://127.0.0.1:{port}/work", timeout_s=0.1))
        for caller in callers:
            caller.close()
    assert answer.kind == "unsent"


def _failed(kind: str, *, retryable: bool = False) -> Any:
    return lambda answer: (
        (answer.kind, answer.error["type"], answer.error["retryable"])
        == (
            "failed",
            kind,
            retryable,
        )
    )


@pytest.mark.parametrize(
    ("status", "body", "is_right"),
    [
        (200, b'{"status": "completed"}', lambda a: a == Answer("completed")),
        (200, b'{"status": "completed", "result": [1]}', lambda a: a.result == [1]),
        (200, b"not json", _failed("invalid_answer")),
        (200, b"[]", _failed("invalid_answer")),
        (200, b'{"status": "done"}', _failed("invalid_answer")),
        (200, b'{"status": "failed", "error": "why"}', _failed("invalid_answer")),
        (200, b'{"status": "failed", "error": {"type": "x"}}', _failed("invalid_answer")),
        (200, b"[" * 100_000, _failed("invalid_answer")),
        (202, b"", lambda a: a == Answer("accepted")),
        (204, b"", _failed("http_status")),
        (400, b"bad \0 \xff", _failed("http_status")),
        (404, b"", _failed("http_status")),
        (408, b"", _failed("http_status", retryable=True)),
        (500, b"oops", _failed("http_status", retryable=True)),
        (504, b"", _failed("http_status", retryable=True)),
    ],
)
def test_answers_mean_what_they_say(status: int, body: bytes, is_right: Any) -> None:
    answer = judged(status, body)
    assert is_right(answer), answer
    json.dumps(answer.error)


def test_error_object_fails_the_attempt_as_it_says() -> None:
    error = {"type": "quota", "message": "no credits", "retryable": False}
    raw = json.dumps({"status": "failed", "error": error}).encode()
    assert judged(200, raw) == Answer("failed", error=error)


@pytest.mark.parametrize(
    ("retry_after", "hold_s"),
    [("", 1), ("5", 5), ("0", 1), ("9999", 60), ("9" * 30, 1), ("Fri", 1)],
)
def test_busy_agent_is_left_alone_for_a_while(retry_after: str, hold_s: float) -> None:
    for status in (429, 503):
        answer = judged(status, b"", retry_after)
        assert (answer.kind, answer.hold_s, answer.reached) == ("unsent", hold_s, True)


def test_probe_tells_a_silent_agent_from_one_that_is_not_there(
    stub: StubAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_request, "CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as busy:
        url = f"http://127.0.0.1:{busy.getsockname()[1]}/"
        assert probe(target(url)) == push_request.SILENT
    gone = probe(target(url))
    assert gone not in {"", push_request.SILENT}


def test_probe_asks_the_declared_path_or_any_answer_of_the_url(stub: StubAgent) -> None:
    assert probe(target(stub.url)) == ""
    stub.health = 404
    assert probe(target(stub.url)) == ""
    assert probe(target(stub.url, health_path="/health")) == "HTTP 404"
    stub.health = 500
    assert probe(target(stub.url)) == "HTTP 500"


def test_least_loaded_agent_is_chosen() -> None:
    small = target("http://a/", concurrency=1, session_id=UUID(int=11))
    large = target("http://b/", concurrency=4, session_id=UUID(int=12))
    assert least_loaded({}, [small, large]) == small
    assert least_loaded({UUID(int=11): 1, UUID(int=12): 3}, [small, large]) == large
    assert least_loaded({UUID(int=11): 1, UUID(int=12): 4}, [small, large]) is None


def test_agent_may_be_sent_to_while_it_is_well_and_wants_to() -> None:
    well = target("http://a/")
    assert may_be_sent_to(well, hold_until=5.0, now=5.0)
    assert not may_be_sent_to(well, hold_until=5.1, now=5.0)
    assert not may_be_sent_to(target("http://a/", session_id=None), 0, 1)
    assert not may_be_sent_to(target("http://a/", paused=True), 0, 1)
    assert not may_be_sent_to(target("http://a/", is_wanted=False), 0, 1)
