"""`?wait=` and streams, on the live platform and the one in memory; connections that break."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from opscore_sdk import (
    AsyncClient,
    Change,
    Client,
    InvalidError,
    NotFoundError,
    UnreachableError,
    WaitTimeoutError,
)
from opscore_sdk.listening import read
from opscore_sdk.testing import MemoryPlatform
from tests.sdk.places import Place

NOBODY = "01890000-0000-7000-8000-000000000000"


@contextmanager
def worker(place: Place) -> Iterator[str]:
    """Do the first task that comes while the block lasts; gives the agent's session."""
    with place.client() as client:
        client.register_agent("echo", "remote", capabilities=["echo"])
        session = client.begin_session("echo").session_id

        def work() -> None:
            for task in client.claim(session, wait_s=20):
                client.report_completed(task.id, task.fence, "done")

        thread = threading.Thread(target=work)
        thread.start()
        yield session
        thread.join(30)


def statuses(changes: list[Change], kind: str) -> list[str]:
    return [item["status"] for one in changes for item in one.items if item["type"] == kind]


def test_an_answer_waits_for_the_end(place: Place, api: Client) -> None:
    with worker(place):
        assert api.submit("echo", wait_s=20).status == "completed"
    with worker(place):
        made = api.submit("echo")
        assert api.run(made.run_id, wait_s=20).status == "completed"
        assert api.task(made.id, wait_s=20).result == "done"


def test_an_answer_waits_no_longer_than_it_was_asked_to(api: Client) -> None:
    made = api.submit("nobody offers this", wait_s=0.2)
    assert made.status == "queued"
    assert api.task(made.id, wait_s=0.2).status == "queued"
    assert api.run(made.run_id, wait_s=0.2).status == "running"
    assert len(api.tasks()) == 1
    for wait_s in (61, -1):
        with pytest.raises(InvalidError):
            api.task(made.id, wait_s=wait_s)
        with pytest.raises(InvalidError):
            api.submit("echo", wait_s=wait_s)
    with pytest.raises(WaitTimeoutError):
        api.wait(made.run_id, timeout_s=0.3, every_s=0.1)


def test_streams_tell_all_and_then_what_changes(place: Place, api: Client) -> None:
    made = api.submit("echo")
    with place.client() as other:
        of_run, of_task = other.stream_run(made.run_id), other.stream_task(made.id)
        first = [next(of_run), next(of_task)]
        assert all(one.is_snapshot for one in first)
        assert statuses(first[:1], "run") == ["running"]
        assert statuses(first, "task") == ["queued", "queued"]
        with worker(place):
            run, task = list(of_run), list(of_task)
        assert not any(one.is_snapshot for one in [*run, *task])
        assert statuses(run, "run")[-1] == "completed"
        assert statuses(task, "task")[-1] == "completed"


def test_agents_are_streamed(place: Place, api: Client) -> None:
    with place.client() as other:
        stream = other.stream_agents()
        assert next(stream) == Change(is_snapshot=True)
        api.register_agent("echo", "remote")
        [item] = next(stream).items
        assert (item["type"], item["name"], item["status"]) == ("agent", "echo", "initializing")
        stream.close()


def test_the_async_client_streams_too(place: Place) -> None:
    async def trial() -> tuple[list[Change], list[str]]:
        async with place.async_client() as client:
            made = await client.submit("echo")
            seen = []
            async for change in client.stream_task(made.id):
                seen.append(change)
                if len(seen) == 1:
                    await client.cancel_task(made.id)
            followed = [run.status async for run in client.follow(made.run_id)]
            assert (await client.run(made.run_id, wait_s=5)).status in {"cancelled", "failed"}
            return seen, followed

    seen, followed = asyncio.run(trial())
    assert statuses(seen, "task") == ["queued", "cancelled"]
    assert followed[-1] in {"cancelled", "failed"}


def test_what_is_not_there_cannot_be_heard_of(api: Client) -> None:
    for stream in (api.stream_run(NOBODY), api.stream_task(NOBODY)):
        with pytest.raises(NotFoundError):
            next(stream)
    with pytest.raises(NotFoundError):
        next(api.follow(NOBODY))


def test_a_run_is_followed_change_by_change(place: Place, api: Client) -> None:
    made = api.submit("echo")
    following = api.follow(made.run_id)
    seen = [next(following)]
    with worker(place):
        seen += list(following)
    assert (seen[0].tasks[0].status, seen[-1].tasks[0].status) == ("queued", "completed")
    assert len(seen) < 8


def test_following_keeps_its_time_limit(api: Client) -> None:
    made = api.submit("echo")
    with pytest.raises(WaitTimeoutError):
        list(api.follow(made.run_id, timeout_s=0.4, every_s=0.1))


def test_a_platform_that_restarts_is_heard_again() -> None:
    platform = MemoryPlatform()
    with platform.client() as api, platform.serve() as url, Client(url, platform.key) as far:
        made = api.submit("echo")
        for client in (api, far):
            stream = client.stream_run(made.run_id, patience_s=20)
            assert next(stream).is_snapshot
            platform.go_away(0.5)
            assert next(stream).is_snapshot
            stream.close()
        assert len([one for one in platform.seen if one.path.endswith("/stream")]) >= 4


def test_who_listens_over_a_socket_hears_of_changes(hasty: MemoryPlatform) -> None:
    with hasty.client() as api, hasty.serve() as url, Client(url, hasty.key) as far:
        made = api.submit("echo")
        stream = far.stream_run(made.run_id)
        assert statuses([next(stream)], "run") == ["running"]
        api.cancel_run(made.run_id)
        assert statuses(list(stream), "run") == ["cancelled"]


def sent(event: str, **data: Any) -> str:
    return f"event: {event}\ndata: {json.dumps(data)}\n\n"


def scripted(*answers: httpx.Response | Exception) -> tuple[Callable[..., Any], list[str]]:
    left, paths = list(answers), []

    def handle(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path.removeprefix("/api/v1"))
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handle, paths


def stream(*events: str) -> httpx.Response:
    return httpx.Response(
        200, headers={"Content-Type": "text/event-stream; charset=utf-8"}, text="".join(events)
    )


def run_of(status: str) -> dict[str, Any]:
    return {"type": "run", "id": "r", "status": status}


def test_a_server_that_sends_the_snapshot_alone_is_asked_again() -> None:
    handle, paths = scripted(
        stream(": hello\n\n", sent("snapshot", items=[run_of("running")])),
        stream(sent("snapshot", items=[run_of("running")])),
        httpx.ConnectError("restarting"),
        stream(sent("snapshot", items=[run_of("completed")])),
    )
    with Client("http://x", "k", transport=httpx.MockTransport(handle)) as client:
        changes = list(client.stream_run("r"))
    assert statuses(changes, "run") == ["running", "running", "completed"]
    assert paths == ["/runs/r/stream"] * 4


def test_where_there_is_no_stream_a_run_is_looked_at() -> None:
    handle, paths = scripted(
        httpx.Response(200, json=run_of("running")),
        httpx.Response(404, json={"detail": "There is nothing here."}),
        httpx.Response(200, json=run_of("running")),
        httpx.Response(200, json=run_of("completed")),
    )
    with Client("http://x", "k", transport=httpx.MockTransport(handle)) as client:
        seen = [run.status for run in client.follow("r", every_s=0.01)]
    assert seen == ["running", "running", "completed"]
    assert paths == ["/runs/r", "/runs/r/stream", "/runs/r", "/runs/r"]


def test_a_page_that_is_no_stream_is_none() -> None:
    handle, _ = scripted(httpx.Response(200, text="<html>"))
    with (
        Client("http://x", "k", transport=httpx.MockTransport(handle)) as client,
        pytest.raises(Exception, match="is it Ops-Core"),
    ):
        next(client.stream_run("r"))


def test_nobody_there_is_said_after_a_few_tries() -> None:
    handle, paths = scripted(*[httpx.ConnectError("refused")] * 4)

    async def trial() -> None:
        transport = httpx.MockTransport(handle)
        async with AsyncClient("http://x", "k", transport=transport) as client:
            async for _ in client.stream_agents():
                pass

    with pytest.raises(UnreachableError):
        asyncio.run(trial())
    assert len(paths) == 4


@pytest.mark.parametrize(
    "lines", [[": still here"], ["event: change"], ["data: {"], ["data: []"], ["data: {}"], ["x"]]
)
def test_what_is_no_event_is_a_sign_of_life(lines: list[str]) -> None:
    assert read(lines) is None


def test_an_event_of_several_lines_is_one() -> None:
    found = read(["event:change", 'data: {"items": [],', 'data:"gone": ["a"]}', "id: 3"])
    assert found == Change(gone=("a",))
