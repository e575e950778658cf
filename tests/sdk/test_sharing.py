"""What agents of one run share: keys with versions, and messages."""

from __future__ import annotations

from typing import Any

import pytest

from opscore_sdk import (
    Agent,
    AsyncContext,
    Client,
    ConflictError,
    Context,
    InvalidError,
    Message,
    NotFoundError,
    VersionConflictError,
)
from opscore_sdk.testing import MemoryPlatform, running


@pytest.fixture
def platform() -> MemoryPlatform:
    return MemoryPlatform(session_ttl_s=600)


@pytest.fixture
def client(platform: MemoryPlatform) -> Client:
    return platform.client()


def test_keys_have_versions(client: Client) -> None:
    run = client.submit("x").run_id
    assert client.shared(run) == []
    first = client.put_shared(run, "plan", {"steps": 1}, if_version=0)
    assert (first.version, first.value) == (1, {"steps": 1})
    with pytest.raises(VersionConflictError, match="version 1, not 0"):
        client.put_shared(run, "plan", {}, if_version=0)
    assert client.put_shared(run, "plan", 2, if_version=1).version == 2
    assert client.put_shared(run, "plan", None).version == 3
    assert client.get_shared(run, "plan").value is None
    client.put_shared(run, "a/b c", 1)
    assert [entry.key for entry in client.shared(run)] == ["a/b c", "plan"]
    client.delete_shared(run, "plan")
    for call in (client.get_shared, client.delete_shared):
        with pytest.raises(NotFoundError):
            call(run, "plan")
    with pytest.raises(NotFoundError):
        client.shared("00000000-0000-7000-8000-000000000000")
    assert client.shared(client.submit("x").run_id) == []


def test_messages_come_again_until_they_are_acknowledged(
    platform: MemoryPlatform, client: Client
) -> None:
    run = client.submit("x").run_id
    client.register_agent("a", "remote", capabilities=["read"])
    session = client.begin_session("a").session_id
    first = client.send_message(run, {"n": 1}, agent="a", topic="t")
    client.send_message(run, 2, capability="read", ttl_s=60)
    client.send_message(run, 3, agent="somebody else")
    one, two = client.receive_messages(session, lease_s=10)
    assert (one.id, one.topic, one.body, one.run_id) == (first, "t", {"n": 1}, run)
    assert two.body == 2
    assert client.receive_messages(session) == []
    client.ack_message(session, one.id, one.receipt)
    platform.advance(20)
    [again] = client.receive_messages(session)
    assert (again.id, again.receipt != two.receipt) == (two.id, True)
    with pytest.raises(ConflictError):
        client.ack_message(session, two.id, two.receipt)
    with pytest.raises(NotFoundError):
        client.ack_message(session, one.id, one.receipt)
    platform.advance(60)
    assert client.receive_messages(session) == []
    with pytest.raises(InvalidError):
        client.send_message(run, 1)
    client.end_session(session)
    with pytest.raises(ConflictError):
        client.receive_messages(session)


def test_plain_functions_share(platform: MemoryPlatform) -> None:
    agent = Agent("worker")

    @agent.task("count")
    def count(inputs: Any, context: Context) -> Any:
        assert context.shared.get("n") is None
        context.shared.put("n", 1, if_version=0)
        context.shared.change("n", lambda value: value + 1)
        context.shared.change("new", lambda value: [value])
        everything = context.shared.all()
        context.shared.delete("new")
        return everything

    assert _result(platform, agent, "count") == {"n": 2, "new": [None]}


def test_async_functions_share(platform: MemoryPlatform) -> None:
    agent = Agent("worker")

    @agent.task("woven")
    async def woven(inputs: Any, context: AsyncContext) -> Any:
        assert await context.shared.get("n") is None
        await context.shared.put("n", 5, if_version=0)
        entry = await context.shared.change("n", lambda value: value + 1)
        with pytest.raises(VersionConflictError):
            await context.shared.put("n", 0, if_version=entry.version - 1)
        await context.shared.put("m", 0)
        await context.shared.delete("m")
        return await context.shared.all()

    assert _result(platform, agent, "woven") == {"n": 6}


def test_a_change_is_made_again_when_somebody_was_faster(platform: MemoryPlatform) -> None:
    agent = Agent("worker", concurrency=8)

    @agent.task("add")
    def add(inputs: Any, context: Context) -> None:
        run = inputs["run"]
        type(context.shared)(run, context.shared._hold).change("n", lambda n: (n or 0) + 1)

    with platform.client() as client, running(agent, platform):
        run = client.submit("nobody").run_id
        tasks = [client.submit("add", inputs={"run": run}) for _ in range(8)]
        for task in tasks:
            client.wait(task.run_id, every_s=0.03, timeout_s=10)
        assert client.get_shared(run, "n").value == 8


def test_messages_reach_functions_by_topic(platform: MemoryPlatform, wait_until: Any) -> None:
    agent = Agent("worker")
    heard: list[Any] = []

    @agent.task("plain")
    def plain(inputs: Any, context: Context) -> str:
        return context.send({"n": 2}, agent="worker", topic="counted")

    @agent.task("woven")
    async def woven(inputs: Any, context: AsyncContext) -> str:
        return await context.send("hello", capability="plain")

    @agent.on_message("counted")
    async def counted(message: Message) -> None:
        heard.append(("counted", message.body))

    @agent.on_message()
    def others(message: Message) -> None:
        heard.append((message.topic, message.body))
        if len([body for _, body in heard if body == "hello"]) == 1:
            raise LookupError("not yet")

    with platform.client() as client, running(agent, platform):
        for word in ("plain", "woven"):
            client.wait(client.submit(word).run_id, every_s=0.03, timeout_s=10)
        wait_until(lambda: len(heard) == 2 and len(platform.sharing.messages) == 1)
        # The one that raised comes again when its lease is over.
        platform.advance(61)
        wait_until(lambda: not platform.sharing.messages)
    assert heard.count(("", "hello")) == 2
    assert heard.count(("counted", {"n": 2})) == 1


def _result(platform: MemoryPlatform, agent: Agent, capability: str) -> Any:
    with platform.client() as client, running(agent, platform):
        made = client.submit(capability)
        assert client.wait(made.run_id, every_s=0.03, timeout_s=10).status == "completed"
        return client.task(made.id).result


def test_an_agent_may_only_listen(platform: MemoryPlatform, wait_until: Any) -> None:
    agent, heard = Agent("ear"), list[Message]()
    agent.on_message("t")(heard.append)
    with platform.client() as client, running(agent, platform):
        run = client.submit("x").run_id
        client.send_message(run, 1, agent="ear", topic="t")
        client.send_message(run, 2, agent="ear", topic="nobody listens")
        wait_until(lambda: not platform.sharing.messages)
    assert [message.body for message in heard] == [1]


def test_a_lost_session_does_not_end_the_listening(
    platform: MemoryPlatform, wait_until: Any
) -> None:
    agent, heard = Agent("ear"), list[Message]()
    agent.on_message()(heard.append)
    with platform.client() as client, running(agent, platform):
        run = client.submit("x").run_id
        wait_until(lambda: platform.engine.sessions)
        [session] = list(platform.engine.sessions.values())
        platform.engine.end_session(session, "ended by the test")
        client.send_message(run, 1, agent="ear")
        wait_until(lambda: heard)
    assert len(platform.engine.sessions) == 2
