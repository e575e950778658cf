"""Both clients know every call of the API, and each call reaches it."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable
from datetime import datetime
from typing import Any

import httpx
import pytest
import yaml

from opscore.config import ROOT
from opscore_sdk import AsyncClient, Client, ConflictError, NotFoundError, UnreachableError
from opscore_sdk.asking import Answer, Ask, Listen
from opscore_sdk.listening import Listener
from opscore_sdk.transport import Async, AsyncStream, Sync, SyncStream
from tests.live_server import Server

DEFINITION = """
name: pay
inputs: {type: object, properties: {n: {type: integer, default: 1}}}
tasks:
  ask: {uses: approval, with: {message: "Pay?", role: viewer}}
"""
#: What clients have no method for: generated documents.
UNCALLED = {"GET /schema", "GET /docs"}
METHODS = (Sync, Async, SyncStream, AsyncStream)


def _calls(kind: type) -> dict[str, Any]:
    return {name: one._talk for name, one in vars(kind).items() if isinstance(one, METHODS)}


def test_both_clients_have_the_same_calls() -> None:
    assert _calls(Client) == _calls(AsyncClient)
    for name, talk in _calls(Client).items():
        assert talk.__name__ == name
        assert talk.__doc__
        assert inspect.signature(getattr(Client, name)) == inspect.signature(talk)
    with pytest.raises(TypeError, match="needs a client"):
        Client.health()
    with pytest.raises(TypeError, match="needs a client"):
        asyncio.run(_awaited(AsyncClient.health()))


async def _awaited(coming: Awaitable[Any]) -> Any:
    return await coming


def test_no_call_of_the_api_is_missing() -> None:
    paths = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text())["paths"]
    known = {
        f"{method.upper()} {re.sub('{[^}]+}', 'X', path.removeprefix('/api/v1'))}"
        for path, methods in paths.items()
        for method in methods
    }
    asked = {place for talk in _calls(Client).values() for place in _asked_by(talk)}
    assert known - asked - UNCALLED == set()


def _asked_by(talk: Any) -> set[str]:
    """Return what a call asks, when every one of its required arguments is `X`."""
    needed = [
        given
        for given in inspect.signature(talk).parameters.values()
        if given.default is given.empty and given.kind is not given.VAR_KEYWORD
    ]
    if talk.__name__ == "upload_file":
        return set()
    odd: dict[str, Any] = {"files": {}, "tasks": [], "lines": [], "error": {}}
    given_by_name = {given.name for given in needed if given.kind is given.KEYWORD_ONLY}
    said = {given.name: odd.get(given.name, "X") for given in needed}
    named = {name: said.pop(name) for name in given_by_name}
    conversation = talk(*said.values(), **named)
    if isinstance(conversation, Listener):
        step = next(conversation.next())
        assert isinstance(step, Listen)
        return {f"{step.request.method} {step.request.path}"}
    step = next(conversation)
    assert isinstance(step, Ask)
    return {f"{step.method} {step.path}"}


@pytest.mark.django_db(transaction=True)
def test_schedules(client: Client) -> None:
    client.upload(DEFINITION)
    made = client.create_schedule("nightly", "pay", cron="0 3 * * *", timezone="Europe/Berlin")
    assert (made.name, made.cron, made.paused, len(made.next_times)) == (
        "nightly",
        "0 3 * * *",
        False,
        5,
    )
    assert isinstance(made.next_times[0], datetime)
    assert client.schedule("nightly").id == made.id
    assert client.change_schedule("nightly", cron=None, every_s=3600).every_s == 3600
    assert client.pause_schedule("nightly").paused
    assert not client.resume_schedule("nightly").paused
    slot = client.trigger_schedule("nightly", overlap="allow")
    assert (slot.cause, client.run(slot.run_id or "").workflow) == ("manual", "pay")
    filled = client.backfill_schedule(
        "nightly", "2026-01-01T00:30:00Z", "2026-01-01T02:30:00Z", overlap="allow"
    )
    assert (filled.slots, filled.created) == (2, 2)
    assert {row.cause for row in client.slots("nightly")} >= {"manual", "backfill"}
    assert [row.name for row in client.schedules(workflow="pay")] == ["nightly"]
    client.delete_schedule("nightly")
    with pytest.raises(NotFoundError):
        client.schedule("nightly")


@pytest.mark.django_db(transaction=True)
def test_approvals_signals_and_pauses(client: Client) -> None:
    client.upload(DEFINITION)
    assert client.pause_all("pay", reason="a check").reason == "a check"
    assert [row.workflow for row in client.pauses()] == ["pay"]
    client.resume_all("pay")
    assert client.pauses() == []
    run = client.execute("pay")
    [waiting] = client.approvals()
    assert (waiting.message, waiting.run_id, waiting.key) == ("Pay?", run.id, "ask")
    with pytest.raises(ConflictError):
        client.signal_task(waiting.task_id, {"n": 1})
    client.signal(run.id, "told", [1])
    assert [(told.name, told.payload) for told in client.signals(run.id)] == [("told", [1])]
    assert client.approve(waiting.task_id, "yes").status == "completed"
    other = client.execute("pay")
    assert client.reject(other.tasks[0].id).status == "failed"
    [again] = client.redrive(workflow="pay")
    assert again.raw["rerun_of"] == other.id
    assert client.cancel_run(again.id, force=True).status == "cancelled"
    assert client.events(kind="run.")


@pytest.mark.django_db(transaction=True)
def test_the_async_client_does_the_same(server: Server) -> None:
    async def trial() -> None:
        async with AsyncClient(server.url, server.key) as client:
            await client.upload(DEFINITION)
            assert [row.name for row in await client.workflows()] == ["pay"]
            run = await client.execute("pay", inputs={"n": 2})
            seen = []
            async for shown in client.watch(run.id, every_s=0.05):
                seen.append(shown.status)
                if len(seen) == 2:
                    await client.approve(run.tasks[0].id)
            assert (seen[0], seen[-1]) == ("running", "completed")
            assert (await client.wait(run.id)).inputs == {"n": 2}
            tasks = await asyncio.gather(*(client.submit("x") for _ in range(5)))
            assert len({task.id for task in tasks}) == 5
            with pytest.raises(NotFoundError):
                await client.task("00000000-0000-7000-8000-000000000000")

    asyncio.run(trial())


def test_the_async_client_tries_again_too() -> None:
    answers: list[httpx.Response | Exception] = [
        httpx.ConnectError("refused"),
        httpx.Response(503),
        httpx.Response(200, json={}),
    ]
    keys: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def trial() -> None:
        transport = httpx.MockTransport(handle)
        async with AsyncClient("http://x", "k", transport=transport) as client:
            await client.pause_agent("a")

    with pytest.raises(TypeError, match="id"):
        asyncio.run(trial())
    assert (len(keys), len(set(keys)), answers) == (3, 1, [])


def test_address_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPSCORE_API_URL", "http://127.0.0.1:9/v1/")
    monkeypatch.setenv("OPSCORE_API_KEY", "secret")
    with Client(timeout_s=1) as client:
        assert client.address == "http://127.0.0.1:9"
        assert client._http.headers["Authorization"] == "Bearer secret"
        with pytest.raises(UnreachableError):
            client.health()


def test_an_answer_carries_what_the_pause_is() -> None:
    assert Answer(503, None, 2.0).retry_after_s == 2.0
