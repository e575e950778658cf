"""Server-sent events: the present state, then changes."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest
from django.db import connection

from opscore.api.event_stream import EVENTS
from opscore.api.streams import BEHIND, Board, Picture, Source, Topic, pictured
from opscore.errors import UnavailableError
from opscore.models import ApiKey, Event, Project
from tasks import control
from tasks.models import Run, Task
from tasks.streams_api import RUNS
from tests.live_server import Server

Events = Iterator[tuple[str, dict[str, Any]]]


def parsed(frames: list[bytes]) -> list[tuple[str, Any]]:
    return [
        (event.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
        for event, data in (frame.decode().strip().split("\n") for frame in frames)
    ]


class TestBoard:
    """Without a database: a test says what is."""

    def test_a_late_reader_begins_with_what_the_next_change_is_compared_with(self) -> None:
        now = {"x": rows(1, 1)}
        topic = Topic(Source(lambda known: {about: now[about] for about in known}), "x")

        async def trial() -> None:
            board = Board()
            first = board.read(topic, 1, now["x"])
            begun = ("snapshot", {"items": [{"id": 1, "n": 1}, {"id": 2, "n": 1}]})
            assert parsed([await anext(first)]) == [begun]
            now["x"] = rows(2)
            # Its own look is newer than what the board knows.
            late = board.read(topic, 1, now["x"])
            assert parsed([await anext(late)]) == [begun]
            await board._look(check=False)
            change = ("change", {"items": [{"id": 1, "n": 2}], "gone": ["2"]})
            assert parsed([await anext(first), await anext(late)]) == [change, change]
            await first.aclose()  # type: ignore[attr-defined]
            await late.aclose()  # type: ignore[attr-defined]
            assert not board._readers
            assert not board._pictures

        asyncio.run(trial())

    def test_a_reader_that_does_not_keep_up_is_cut(self) -> None:
        number = 0

        def look(known: Any) -> Any:
            return {about: rows(number) for about in known}

        async def trial() -> int:
            nonlocal number
            board = Board()
            reader = board.read(Topic(Source(look), "x"), 1, rows())
            await anext(reader)
            for number in range(BEHIND + 5):  # noqa: B007 - `look` reads it
                await board._look(check=False)
            return len([frame async for frame in reader])

        # It gets no more than what was kept for it; then it ends.
        assert asyncio.run(trial()) <= BEHIND

    def test_what_is_no_more_ends_its_streams(self) -> None:
        async def trial() -> list[bytes]:
            board = Board()
            reader = board.read(Topic(Source(lambda known: {}), "x"), 1, rows())
            await anext(reader)
            await board._look(check=False)
            return [frame async for frame in reader]

        assert asyncio.run(trial()) in ([], [b": this is the end\n\n"])

    def test_a_source_that_fails_does_not_blind_the_others(self) -> None:
        def fails(known: Any) -> Any:
            raise RuntimeError("no")

        async def trial() -> Any:
            board = Board()
            topics = [Topic(Source(fails), "x"), Topic(Source(lambda known: {"x": rows(2)}), "x")]
            # Whichever comes first.
            topics.append(Topic(Source(fails), "x"))
            readers = [board.read(topic, 1, rows(1)) for topic in topics]
            for reader in readers:
                await anext(reader)
            await board._look(check=False)
            return parsed([await anext(readers[1])])

        change = {"items": [{"id": 1, "n": 2}], "gone": []}
        assert asyncio.run(trial()) == [("change", change)]

    def test_many_who_come_at_once_cost_one_look_and_one_snapshot(self) -> None:
        looks: list[Any] = []

        def look(known: Any) -> Any:
            looks.append(known)
            return {about: rows(1) for about in known}

        async def trial() -> list[bytes]:
            board = Board()
            topic = Topic(Source(look), "x")
            pictures = await asyncio.gather(*(board.picture(topic) for _ in range(20)))
            readers = [board.read(topic, 1, picture) for picture in pictures if picture]
            return [await anext(reader) for reader in readers]

        frames = asyncio.run(trial())
        assert len(looks) == 1
        assert len(frames) == 20
        assert all(frame is frames[0] for frame in frames)

    def test_comparing_and_encoding_are_no_work_of_the_event_loop(self) -> None:
        threads: set[str] = set()

        class Noted(str):
            __slots__ = ()

            def __ne__(self, other: object) -> bool:
                threads.add(threading.current_thread().name)
                return super().__ne__(other)

        async def trial() -> None:
            board = Board()
            now = Picture({"1": Noted("2")})
            reader = board.read(Topic(Source(lambda known: {"x": now}), "x"), 1, rows(1))
            await anext(reader)
            await board._look(check=False)

        asyncio.run(trial())
        assert threads
        assert all(name.startswith("api") for name in threads)

    def test_what_all_follow_together_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("opscore.api.streams.MOST_ITEMS", 3)
        source = Source(lambda known: {about: rows(1, 1) for about in known})

        async def trial() -> None:
            board = Board()
            picture = await board.picture(Topic(source, "x"))
            assert picture is not None
            reader = board.read(Topic(source, "x"), 1, picture)
            await anext(reader)
            assert await board.picture(Topic(source, "x")) is picture
            with pytest.raises(UnavailableError):
                await board.picture(Topic(source, "y"))
            await reader.aclose()  # type: ignore[attr-defined]
            assert await board.picture(Topic(source, "y")) is not None

        asyncio.run(trial())


def rows(*numbers: int) -> Picture:
    return pictured([{"id": place, "n": n} for place, n in enumerate(numbers, 1)])


@pytest.mark.django_db
class TestEvents:
    """What the stream of events makes of the table."""

    @pytest.fixture
    def happen(self, project: Project) -> Callable[..., None]:
        def happen(ids: Iterable[int]) -> None:
            Event.objects.bulk_create(Event(id=id_, project=project, kind="x") for id_ in ids)

        return happen

    @pytest.fixture
    def look(self, project: Project) -> Callable[[Picture | None], Picture]:
        Event.objects.all().delete()
        return lambda before: EVENTS.look({project.pk: before})[project.pk]

    def test_a_burst_is_told_whole(self, look: Any, happen: Any) -> None:
        happen(range(1, 150))
        begun = look(None)
        assert list(begun.items) == [str(id_) for id_ in range(50, 150)]
        assert look(begun) is begun
        happen(range(150, 1650))
        later = look(begun)
        assert [json.loads(text)["id"] for text in later.fresh] == [*range(150, 1650)]
        # Whoever comes now begins with the latest.
        assert list(later.items) == [str(id_) for id_ in range(1550, 1650)]
        assert look(later) is later

    def test_what_commits_late_is_told_once(self, look: Any, happen: Any) -> None:
        happen([1, *range(500, 1000)])
        begun = look(None)
        happen([7, 1001])
        later = look(begun)
        assert [json.loads(text)["id"] for text in later.fresh] == [7, 1001]
        happen([8])
        again = look(later)
        assert [json.loads(text)["id"] for text in again.fresh] == [8]
        assert look(again) is again

    def test_more_than_can_be_told_begins_anew(
        self, look: Any, happen: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("opscore.api.event_stream._MOST", 10)
        happen([1])
        begun = look(None)
        happen(range(2, 13))
        anew = look(begun)
        assert (anew.begins, len(anew.items)) == (True, 12)
        happen([13])
        assert len(look(anew).fresh) == 1


@pytest.mark.django_db
def test_a_run_that_has_not_changed_is_the_same_picture(api: Any) -> None:
    run_id = UUID(api("POST", "/tasks", {"capability": "x"}).json()["run_id"])
    begun = RUNS.look({run_id: None})[run_id]
    assert RUNS.look({run_id: begun})[run_id] is begun
    Run.objects.update(phase="undo")
    told = RUNS.look({run_id: begun})[run_id]
    assert [json.loads(text)["type"] for text in told.items.values()] == ["run", "task"]
    assert json.loads(told.items[str(run_id)])["phase"] == "undo"
    control.cancel_run(run_id, actor="test")
    over = RUNS.look({run_id: told})[run_id]
    assert {json.loads(text)["status"] for text in over.items.values()} == {"cancelled"}


@pytest.mark.django_db
def test_without_asgi_the_snapshot_is_all(api: Any) -> None:
    task = api("POST", "/tasks", {"capability": "x"}).json()
    answer = api("GET", f"/runs/{task['run_id']}/stream")
    assert answer["Content-Type"] == "text/event-stream"
    [(event, shown)] = parsed([answer.content])
    assert event == "snapshot"
    assert [(item["type"], item["status"]) for item in shown["items"]] == [
        ("run", "running"),
        ("task", "queued"),
    ]
    missing = api("GET", "/runs/00000000-0000-0000-0000-000000000001/stream")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


@pytest.mark.django_db(transaction=True)
class TestLive:
    """At a live server."""

    @pytest.fixture
    def http(self, server: Server) -> Iterator[httpx.Client]:
        with server.client() as client:
            yield client

    def test_a_run_is_shown_and_then_its_changes(self, server: Server, http: httpx.Client) -> None:
        task = http.post("/tasks", json={"capability": "x"}).json()
        with reading(server, f"/runs/{task['run_id']}/stream") as events:
            assert next(events)[0] == "snapshot"
            control.cancel_run(task["run_id"], actor="test")
            seen: dict[str, str] = {}
            while set(seen.values()) != {"cancelled"} or len(seen) < 2:
                event, change = next(events)
                assert event == "change"
                seen |= {item["type"]: item["status"] for item in change["items"]}
        # Whoever comes back gets the present state.
        with reading(server, f"/runs/{task['run_id']}/stream") as events:
            event, shown = next(events)
        assert (event, {item["status"] for item in shown["items"]}) == ("snapshot", {"cancelled"})

    def test_agents_events_and_tasks_too(self, server: Server, http: httpx.Client) -> None:
        task = http.post("/tasks", json={"capability": "x"}).json()
        with (
            reading(server, "/agents/stream") as agents,
            reading(server, "/events/stream") as happened,
            reading(server, f"/tasks/{task['id']}/stream") as one,
        ):
            assert next(agents) == ("snapshot", {"items": []})
            next(happened)
            assert next(one)[1]["items"][0]["status"] == "queued"
            http.post("/agents", json={"name": "a", "kind": "remote", "capabilities": ["x"]})
            assert next(agents)[1]["items"][0]["name"] == "a"
            http.post("/agents/a/pause")
            assert next(agents)[1]["items"][0]["paused"]
            kinds: set[str] = set()
            while "agent.paused" not in kinds:
                kinds |= {item["kind"] for item in next(happened)[1]["items"]}
            control.cancel_task(task["id"], actor="test")
            assert next(one)[1]["items"][0]["status"] == "cancelled"

    def test_a_revoked_key_ends_its_streams(self, server: Server, http: httpx.Client) -> None:
        with reading(server, "/agents/stream") as events:
            next(events)
            ApiKey.objects.update(revoked_at="2020-01-01T00:00:00Z")
            assert list(events) == []

    def test_a_run_that_is_deleted_ends_its_streams(
        self, server: Server, http: httpx.Client
    ) -> None:
        task = http.post("/tasks", json={"capability": "x"}).json()
        with reading(server, f"/runs/{task['run_id']}/stream") as events:
            next(events)
            Task.objects.all().delete()
            Run.objects.all().delete()
            assert not [event for event in events if event[0] != "change"]

    def test_a_burst_of_events_is_told_whole(self, server: Server, project: Project) -> None:
        with reading(server, "/events/stream") as events:
            assert next(events)[0] == "snapshot"
            Event.objects.bulk_create(Event(project=project, kind="burst") for _ in range(1000))
            told: list[Any] = []
            while len(told) < 1000:
                told += next(events)[1]["items"]
        assert len({item["id"] for item in told}) == 1000

    def test_two_hundred_readers_hold_no_connections(
        self, server: Server, http: httpx.Client
    ) -> None:
        task = http.post("/tasks", json={"capability": "x"}).json()
        before = _connections()

        async def trial() -> int:
            headers = {"Authorization": f"Bearer {server.key}"}
            limits = httpx.Limits(max_connections=None)
            async with httpx.AsyncClient(
                base_url=server.url, headers=headers, timeout=40, limits=limits
            ) as client:

                async def follow(begun: asyncio.Semaphore) -> None:
                    async with client.stream("GET", f"/runs/{task['run_id']}/stream") as answer:
                        async for line in answer.aiter_lines():
                            if line == "event: snapshot":
                                begun.release()
                            if '"status":"cancelled"' in line and '"type":"run"' in line:
                                return

                begun = asyncio.Semaphore(0)
                readers = [asyncio.create_task(follow(begun)) for _ in range(200)]
                for _ in readers:
                    await begun.acquire()
                held = await asyncio.to_thread(_connections)
                await asyncio.to_thread(_cancel, task["run_id"])
                await asyncio.gather(*readers)
            return held

        # The eight threads of the API at most, and this test's own second one.
        assert asyncio.run(trial()) <= before + 9


@contextmanager
def reading(server: Server, path: str) -> Iterator[Events]:
    with server.client() as client, client.stream("GET", path) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "text/event-stream"
        yield _events(answer.iter_lines())


def _events(lines: Iterator[str]) -> Events:
    event = ""
    for line in lines:
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield event, json.loads(line.removeprefix("data: "))


def _connections() -> int:
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            )
            return int(cursor.fetchone()[0])
    finally:
        connection.close()


def _cancel(run_id: str) -> None:
    try:
        control.cancel_run(run_id, actor="test")  # type: ignore[arg-type]
    finally:
        connection.close()
