"""What agents of one run share, at the live platform and at the one in memory."""

from __future__ import annotations

from collections.abc import Callable
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
    TaskCancelledError,
    TooLargeError,
    UnsendableError,
    VersionConflictError,
)
from opscore_sdk.context import Shared
from opscore_sdk.protocol import ClaimedTask
from opscore_sdk.testing import running
from tests.sdk.places import Place

NOBODY = "00000000-0000-7000-8000-000000000000"


def begin(api: Client, name: str, *capabilities: str) -> str:
    """Register an agent and begin its session."""
    api.register_agent(name, "remote", capabilities=capabilities)
    return api.begin_session(name).session_id


def claimed(api: Client, session: str, capability: str) -> ClaimedTask:
    """Submit a task and claim it."""
    api.submit(capability)
    [task] = api.claim(session)
    return task


def test_keys_have_versions(api: Client) -> None:
    run = api.submit("x").run_id
    assert api.shared(run) == []
    first = api.put_shared(run, "plan", {"steps": 1}, if_version=0)
    assert (first.version, first.value) == (1, {"steps": 1})
    with pytest.raises(VersionConflictError, match="has version 1"):
        api.put_shared(run, "plan", {}, if_version=0)
    with pytest.raises(VersionConflictError, match="does not exist"):
        api.put_shared(run, "other", {}, if_version=1)
    assert api.put_shared(run, "plan", 2, if_version=1).version == 2
    assert api.put_shared(run, "plan", None).version == 3
    assert api.get_shared(run, "plan").value is None
    api.put_shared(run, "a:b@c", 1)
    assert [entry.key for entry in api.shared(run)] == ["a:b@c", "plan"]
    with pytest.raises(VersionConflictError, match="has version 3"):
        api.delete_shared(run, "plan", if_version=2)
    api.delete_shared(run, "plan", if_version=3)
    for call in (api.get_shared, api.delete_shared):
        with pytest.raises(NotFoundError):
            call(run, "plan")
    # A version never comes back, so who still has the old one cannot write over the new entry.
    assert api.put_shared(run, "plan", "again", if_version=0).version == 5
    with pytest.raises(NotFoundError):
        api.shared(NOBODY)
    assert api.shared(api.submit("x").run_id) == []


@pytest.mark.parametrize("key", ["a/b", "ä", " ", "-x", "x" * 201])
def test_odd_keys_are_refused(api: Client, key: str) -> None:
    run = api.submit("x").run_id
    with pytest.raises((InvalidError, NotFoundError)):
        api.put_shared(run, key, 1)
    assert api.shared(run) == []


def test_what_is_shared_is_bounded(api: Client) -> None:
    run = api.submit("x").run_id
    begin(api, "a")
    large = "x" * 65_536
    for write in (
        lambda: api.put_shared(run, "large", large),
        lambda: api.send_message(run, large, agent="a"),
    ):
        with pytest.raises(TooLargeError):
            write()
    with pytest.raises(UnsendableError, match="no JSON"):
        api.put_shared(run, "nan", float("nan"))
    assert (api.shared(run), api.messages(run)) == ([], [])


def test_an_ended_run_is_read_only(api: Client) -> None:
    run = api.submit("x").run_id
    api.put_shared(run, "k", 1)
    api.cancel_run(run)
    writes: list[Callable[[], Any]] = [
        lambda: api.put_shared(run, "k", 2),
        lambda: api.delete_shared(run, "k"),
        lambda: api.send_message(run, 1, capability="x"),
    ]
    for write in writes:
        with pytest.raises(ConflictError, match="read-only"):
            write()
    assert api.get_shared(run, "k").value == 1


def test_who_writes_for_an_attempt_is_named_by_it_until_it_is_over(api: Client) -> None:
    session = begin(api, "author", "write")
    task = claimed(api, session, "write")
    run, proof = task.run_id, task.proof
    assert api.put_shared(run, "k", 1, attempt=proof).updated_by == "agent:author"
    assert api.put_shared(run, "k", 2).updated_by.startswith("key:")
    api.send_message(run, "mine", agent="author", attempt=proof)
    api.send_message(run, "its", agent="author", topic="t")
    by_agent, by_key = api.receive_messages(session)
    assert (by_agent.sender, by_agent.reply_to) == ("agent:author", {"agent": "author"})
    assert by_key.sender.startswith("key:")
    assert by_key.reply_to is None
    old = f"{task.id}/{task.fence + 1}"
    writes: list[Callable[[str], Any]] = [
        lambda attempt: api.put_shared(run, "k", 3, attempt=attempt),
        lambda attempt: api.delete_shared(run, "k", attempt=attempt),
        lambda attempt: api.send_message(run, 1, agent="author", attempt=attempt),
    ]
    for write in writes:
        with pytest.raises(ConflictError) as refused:
            write(old)
        assert refused.value.code == "attempt_over"
        with pytest.raises(InvalidError):
            write("nonsense")
    assert api.get_shared(run, "k").value == 2


def test_messages_come_again_until_they_are_acknowledged(api: Client, place: Place) -> None:
    run = api.submit("x").run_id
    session = begin(api, "a", "read")
    begin(api, "b")
    first = api.send_message(run, {"n": 1}, agent="a", topic="t")
    api.send_message(run, 2, capability="read", ttl_s=60)
    api.send_message(run, 3, agent="b")
    one, two = api.receive_messages(session, lease_s=10)
    assert (one.id, one.topic, one.body, one.run_id) == (first, "t", {"n": 1}, run)
    assert (two.body, two.topic, two.deliveries) == (2, "", 1)
    assert api.receive_messages(session) == []
    api.ack_message(session, one.id, one.receipt)
    # The answer of the first may have got lost.
    api.ack_message(session, one.id, one.receipt)
    place.later(20)
    [again] = api.receive_messages(session)
    assert (again.id, again.receipt != two.receipt, again.deliveries) == (two.id, True, 2)
    with pytest.raises(ConflictError):
        api.ack_message(session, two.id, two.receipt)
    assert [row["deliveries"] for row in api.messages(run)] == [0, 2, 1]
    place.later(60)
    assert api.receive_messages(session) == []
    api.end_session(session)
    with pytest.raises(ConflictError):
        api.receive_messages(session)


def test_a_message_comes_again_at_once_when_its_receiver_has_gone(api: Client) -> None:
    run = api.submit("x").run_id
    session = begin(api, "a")
    api.send_message(run, 1, agent="a")
    [first] = api.receive_messages(session, lease_s=600)
    api.end_session(session)
    [again] = api.receive_messages(api.begin_session("a").session_id)
    assert (again.id, again.deliveries) == (first.id, 2)


@pytest.mark.parametrize(
    "wrong", [{}, {"agent": "nobody"}, {"capability": ""}, {"agent": "a", "capability": "x"}]
)
def test_a_message_needs_one_receiver(api: Client, wrong: dict[str, Any]) -> None:
    begin(api, "a")
    run = api.submit("x").run_id
    with pytest.raises(InvalidError):
        api.send_message(run, 1, **wrong)
    odd: list[dict[str, Any]] = [{"topic": "x" * 101}, {"ttl_s": 0.5}, {"ttl_s": 1e9}]
    for options in odd:
        with pytest.raises(InvalidError):
            api.send_message(run, 1, agent="a", **options)
    assert api.messages(run) == []


def test_plain_functions_share(place: Place) -> None:
    agent = Agent("worker")

    @agent.task("count")
    def count(inputs: Any, context: Context) -> Any:
        assert context.shared.get("n") is None
        by = context.shared.put("n", 1, if_version=0).updated_by
        context.shared.change("n", lambda value: value + 1)
        new = context.shared.change("new", lambda value: [value])
        everything = context.shared.all()
        context.shared.delete("new", if_version=new.version)
        return [by, everything]

    assert _result(place, agent, "count") == ["agent:worker", {"n": 2, "new": [None]}]


def test_async_functions_share(place: Place) -> None:
    agent = Agent("worker")

    @agent.task("woven")
    async def woven(inputs: Any, context: AsyncContext) -> Any:
        assert await context.shared.get("n") is None
        by = (await context.shared.put("n", 5, if_version=0)).updated_by
        entry = await context.shared.change("n", lambda value: value + 1)
        with pytest.raises(VersionConflictError):
            await context.shared.put("n", 0, if_version=entry.version - 1)
        await context.shared.put("m", 0)
        await context.shared.delete("m")
        return [by, await context.shared.all()]

    assert _result(place, agent, "woven") == ["agent:worker", {"n": 6}]


def test_an_attempt_that_is_over_writes_nothing_more(place: Place) -> None:
    agent, told = Agent("worker"), list[str]()

    @agent.task("zombie")
    def zombie(inputs: Any, context: Context) -> None:
        with place.client() as other:
            other.cancel_task(context.task_id)
        writes: list[Callable[[], object]] = [
            lambda: context.shared.put("n", 1),
            lambda: context.shared.change("n", lambda _: 1),
        ]
        for write in writes:
            try:
                write()
            except (TaskCancelledError, ConflictError) as error:
                told.append(str(error))

    with place.client() as client, running(agent, place.async_client):
        run = client.submit("zombie").run_id
        assert client.wait(run, every_s=0.03, timeout_s=60).status == "cancelled"
    assert len(told) == 2
    with place.client() as client:
        assert client.shared(run) == []


def test_a_change_is_made_again_when_somebody_was_faster(place: Place) -> None:
    agent = Agent("worker", concurrency=8)

    @agent.task("add")
    def add(inputs: Any, context: Context) -> None:
        shared = Shared(inputs["run"], context.shared._hold)
        shared.change("n", lambda n: (n or 0) + 1)

    with place.client() as client, running(agent, place.async_client):
        run = client.submit("nobody").run_id
        tasks = [client.submit("add", inputs={"run": run}) for _ in range(8)]
        for task in tasks:
            assert client.wait(task.run_id, every_s=0.03, timeout_s=60).status == "completed"
        assert client.get_shared(run, "n").value == 8


def test_messages_reach_functions_by_topic(place: Place, wait_until: Any) -> None:
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
        heard.append((message.sender, message.body))

    @agent.on_message()
    def others(message: Message) -> None:
        heard.append((message.topic, message.body))
        if len([body for _, body in heard if body == "hello"]) == 1:
            raise LookupError("not yet")

    with place.client() as client, running(agent, place.async_client):
        runs = [client.submit(word).run_id for word in ("plain", "woven")]
        for run in runs:
            assert client.wait(run, every_s=0.03, timeout_s=60).status == "completed"
        wait_until(lambda: len(heard) == 2 and len(_open(client, runs)) == 1)
        # The one that raised comes again when its lease is over.
        place.later(61)
        wait_until(lambda: not _open(client, runs))
    assert heard.count(("", "hello")) == 2
    assert heard.count(("agent:worker", {"n": 2})) == 1


def _open(client: Client, runs: list[str]) -> list[dict[str, Any]]:
    rows = [row for run in runs for row in client.messages(run)]
    return [row for row in rows if row["acknowledged_at"] is None]


def _result(place: Place, agent: Agent, capability: str) -> Any:
    with place.client() as client, running(agent, place.async_client):
        made = client.submit(capability)
        assert client.wait(made.run_id, every_s=0.03, timeout_s=60).status == "completed"
        return client.task(made.id).result


def test_an_agent_may_only_listen(place: Place, wait_until: Any) -> None:
    agent, heard = Agent("ear"), list[Message]()
    agent.on_message("t")(heard.append)
    with place.client() as client, running(agent, place.async_client):
        wait_until(lambda: [one.status for one in client.agents()] == ["active"])
        run = client.submit("x").run_id
        client.send_message(run, 1, agent="ear", topic="t")
        client.send_message(run, 2, agent="ear", topic="nobody listens")
        wait_until(lambda: not _open(client, [run]))
    assert [message.body for message in heard] == [1]


def test_a_lost_session_does_not_end_the_listening(place: Place, wait_until: Any) -> None:
    agent, heard = Agent("ear"), list[Message]()
    agent.on_message()(heard.append)
    with place.client() as client, running(agent, place.async_client):
        wait_until(lambda: [one.status for one in client.agents()] == ["active"])
        run = client.submit("x").run_id
        client.end_session(client.agent("ear").raw["sessions"][0]["id"])
        client.send_message(run, 1, agent="ear")
        wait_until(lambda: heard)
        assert len(client.agent("ear").raw["sessions"]) == 2
