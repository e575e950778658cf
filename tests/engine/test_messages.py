"""Messages between agents: at least once, to one receiver, until their time to live is over."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from django.db import connections

from agents import registry, sessions
from agents.handlers import Context, HandlerError
from agents.models import AgentSession
from opscore.config import load_config
from opscore.database import query
from opscore.errors import ConflictError, InvalidError, NotFoundError, TooLargeError
from opscore.models import Event, Project
from opscore.schedule import BEAT_SCHEDULE
from tasks import housekeeping, messages
from tasks.control import cancel_run
from tasks.execution import Outcome
from tasks.graph import Graph, Node
from tasks.models import Message, Run, Task
from tasks.submission import start_run, submit_task
from tasks.writers import AttemptOverError, Writer
from tests.engine.conftest import Bench, error_of

pytestmark = pytest.mark.django_db(transaction=True)

SOMEBODY = Writer("key:test")


@pytest.fixture
def run(project: Project) -> Run:
    return submit_task(project, Node(key="job", capability="work")).run


def agent(project: Project, name: str, *capabilities: str) -> AgentSession:
    made = registry.register(project, name=name, kind="remote", capabilities=capabilities)[0]
    return sessions.start(made)


def send(run: Run, to: dict[str, str], topic: str = "hi", **options: Any) -> Any:
    writer = options.pop("writer", SOMEBODY)
    body = options.pop("body", {"n": 1})
    return messages.send(
        run.project, run.pk, to=to, topic=topic, body=body, writer=writer, **options
    )


def later(seconds: float) -> None:
    """Let time pass for every message."""
    query(
        """UPDATE tasks_message SET expires_at = expires_at - make_interval(secs => %(s)s),
                  lease_until = lease_until - make_interval(secs => %(s)s),
                  acknowledged_at = acknowledged_at - make_interval(secs => %(s)s)""",
        {"s": seconds},
    )


def test_message_reaches_the_agent_it_names_and_nobody_else(project: Project, run: Run) -> None:
    ann, bob = agent(project, "ann", "review"), agent(project, "bob", "review")
    sent = send(run, {"agent": "bob"}, body=[1, {"a": None}])
    assert messages.receive(ann.pk, 10, 30) == []
    [message] = messages.receive(bob.pk, 10, 30)
    assert (message.id, message.body, message.topic) == (sent["id"], [1, {"a": None}], "hi")
    assert (message.sender, message.reply_to, message.deliveries) == ("key:test", None, 1)
    assert message.run_id == run.pk
    assert messages.receive(bob.pk, 10, 30) == []
    messages.acknowledge(message.id, message.receipt)
    messages.acknowledge(message.id, message.receipt)
    later(40)
    assert messages.receive(bob.pk, 10, 30) == []


def test_message_to_a_capability_goes_to_one_of_many(project: Project, run: Run) -> None:
    receivers = [agent(project, f"r{n}", "review") for n in range(4)]
    idle = agent(project, "idle", "other")
    sent = {send(run, {"capability": "review"})["id"] for _ in range(40)}

    def receive(session: AgentSession) -> list[Any]:
        got: list[Any] = []
        try:
            while batch := messages.receive(session.pk, 3, 30):
                got += batch
        finally:
            connections.close_all()
        return got

    with ThreadPoolExecutor(4) as pool:
        got = [message.id for found in pool.map(receive, receivers) for message in found]
    assert len(got) == 40, "one was handed out twice or not at all"
    assert set(got) == sent
    assert messages.receive(idle.pk, 10, 30) == []


def test_oldest_comes_first_and_the_limit_holds(project: Project, run: Run) -> None:
    ann = agent(project, "ann")
    for n in range(5):
        send(run, {"agent": "ann"}, topic=str(n))
    assert [m.topic for m in messages.receive(ann.pk, 3, 30)] == ["0", "1", "2"]
    assert [m.topic for m in messages.receive(ann.pk, 3, 30)] == ["3", "4"]


def test_unacknowledged_message_comes_again_after_its_lease(project: Project, run: Run) -> None:
    ann, bob = agent(project, "ann", "review"), agent(project, "bob", "review")
    send(run, {"capability": "review"})
    [first] = messages.receive(ann.pk, 1, 30)
    later(20)
    assert messages.receive(bob.pk, 1, 30) == []
    later(11)
    [second] = messages.receive(bob.pk, 1, 30)
    assert (second.id, second.deliveries) == (first.id, 2)
    with pytest.raises(ConflictError, match="drop the work"):
        messages.acknowledge(first.id, first.receipt)
    messages.acknowledge(second.id, second.receipt)


def test_late_acknowledgement_counts_while_nobody_else_has_it(project: Project, run: Run) -> None:
    ann = agent(project, "ann")
    send(run, {"agent": "ann"})
    [message] = messages.receive(ann.pk, 1, 30)
    later(60)
    messages.acknowledge(message.id, message.receipt)
    assert messages.receive(ann.pk, 1, 30) == []


def test_dead_session_gives_its_messages_back_at_once(project: Project, run: Run) -> None:
    ann, bob = agent(project, "ann", "review"), agent(project, "bob", "review")
    send(run, {"capability": "review"})
    assert len(messages.receive(ann.pk, 1, 3600)) == 1
    sessions.end([ann.pk], "killed")
    assert [m.deliveries for m in messages.receive(bob.pk, 1, 30)] == [2]
    assert messages.receive(ann.pk, 1, 30) == []


def test_message_that_was_put_back_counts_as_never_handed_out(project: Project, run: Run) -> None:
    ann = agent(project, "ann")
    send(run, {"agent": "ann"})
    lost = messages.receive(ann.pk, 1, 3600)
    messages.put_back(lost)
    [message] = messages.receive(ann.pk, 1, 30)
    assert message.deliveries == 1
    with pytest.raises(ConflictError):
        messages.acknowledge(lost[0].id, lost[0].receipt)


def test_expired_messages_are_not_delivered_and_are_deleted(
    project: Project, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "BATCH", 2)
    ann = agent(project, "ann")
    for n in range(5):
        send(run, {"agent": "ann"}, ttl_s=10, topic=f"old {n}")
    send(run, {"agent": "ann"}, ttl_s=1000, topic="done")
    send(run, {"agent": "ann"}, ttl_s=1000, topic="young")
    [done] = [m for m in messages.receive(ann.pk, 10, 500) if m.topic == "done"]
    messages.acknowledge(done.id, done.receipt)
    later(11)
    assert messages.delete_done()
    housekeeping.expire_messages()
    # A repeated acknowledgement is still answered alike.
    assert set(Message.objects.values_list("topic", flat=True)) == {"done", "young"}
    later(messages.KEPT_S)
    housekeeping.expire_messages()
    assert Message.objects.get().topic == "young"
    with pytest.raises(NotFoundError):
        messages.acknowledge(done.id, done.receipt)
    expired = Event.objects.filter(kind="message.expired", run_id=run.pk)
    assert sorted(event.data["topic"] for event in expired) == [f"old {n}" for n in range(5)]


def test_expired_messages_are_told_within_a_minute() -> None:
    periods = {entry["task"]: entry["schedule"] for entry in BEAT_SCHEDULE.values()}
    assert periods["tasks.expire_messages"] <= 60


def test_expired_message_is_not_delivered(project: Project, run: Run) -> None:
    ann = agent(project, "ann")
    send(run, {"agent": "ann"}, ttl_s=10)
    later(11)
    assert messages.receive(ann.pk, 1, 30) == []


def test_bounds_hold(project: Project, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_config(), "messages_per_run", 2)
    monkeypatch.setattr(load_config(), "message_bytes", 10)
    ann = agent(project, "ann")
    with pytest.raises(TooLargeError, match="OPSCORE_MESSAGE_BYTES"):
        send(run, {"agent": "ann"}, body="x" * 9)
    for _ in range(2):
        send(run, {"agent": "ann"}, body="x")
    with pytest.raises(TooLargeError, match="OPSCORE_MESSAGES_PER_RUN"):
        send(run, {"agent": "ann"}, body="x")
    [message] = messages.receive(ann.pk, 1, 30)
    messages.acknowledge(message.id, message.receipt)
    send(run, {"agent": "ann"}, body="x")


@pytest.mark.parametrize(
    ("to", "topic", "ttl_s", "path"),
    [
        ({"agent": "an"}, "t", 60, "to.agent"),
        ({}, "t", 60, "to"),
        ({"agent": "ann", "capability": "x"}, "t", 60, "to"),
        ({"agent": ""}, "t", 60, "to"),
        ({"capability": "x" * 101}, "t", 60, "to"),
        ({"capability": 5}, "t", 60, "to"),
        ({"agent": "ann"}, "x" * 101, 60, "topic"),
        ({"agent": "ann"}, "a\0", 60, "topic"),
        ({"agent": "ann"}, "t", 0.5, "ttl_s"),
        ({"agent": "ann"}, "t", float("nan"), "ttl_s"),
        ({"agent": "ann"}, "t", messages.MAX_TTL_S + 1, "ttl_s"),
    ],
)
def test_what_makes_no_sense_is_refused(
    run: Run, to: dict[str, str], topic: str, ttl_s: float, path: str
) -> None:
    agent(run.project, "ann")
    with pytest.raises(InvalidError) as refused:
        send(run, to, topic=topic, ttl_s=ttl_s)
    assert [problem.path for problem in refused.value.problems] == [path]
    assert not Message.objects.exists()


def test_ended_run_takes_no_messages_and_delivers_what_it_has(project: Project, run: Run) -> None:
    ann = agent(project, "ann")
    send(run, {"agent": "ann"})
    cancel_run(run.pk)
    with pytest.raises(ConflictError, match="read-only"):
        send(run, {"agent": "ann"})
    with pytest.raises(NotFoundError):
        messages.send(project, uuid4(), to={"agent": "ann"}, topic="t", body=None, writer=SOMEBODY)
    assert len(messages.receive(ann.pk, 10, 30)) == 1


def test_zombie_cannot_send(bench: Bench) -> None:
    task = submit_task(bench.project, Node(key="job", capability="work"))
    agent(bench.project, "ann")

    def work(context: Context) -> None:
        bench.reborn()
        with pytest.raises(HandlerError) as refused:
            context.send({"agent": "ann"}, "late")
        assert refused.value.type == "attempt_over"

    bench.does("work", work)
    assert bench.step(task) is Outcome.STALE
    assert not Message.objects.exists()
    with pytest.raises(AttemptOverError):
        send(task.run, {"agent": "ann"}, writer=Writer("agent:bench", task.id, 1))


def test_same_message_sent_again_is_one(project: Project, run: Run) -> None:
    ann = agent(project, "ann")
    message_id = uuid4()
    for _ in range(2):
        assert send(run, {"agent": "ann"}, message_id=message_id)["id"] == message_id
    assert len(messages.receive(ann.pk, 10, 30)) == 1


def test_handlers_write_to_each_other(bench: Bench) -> None:
    bob = agent(bench.project, "bob")

    def work(task: Context) -> str:
        task.send({"capability": "other"}, "question", {"n": 6}, ttl_s=60)
        return str(task.send({"agent": "bob"}, "hello"))

    def other(task: Context) -> Any:
        [message] = task.receive(limit=5, lease_s=5)
        assert message.reply_to == {"agent": "bench"}
        assert task.acknowledge(message)
        task.send(message.reply_to, "answer", message.body["n"] * 7)
        [answer] = task.receive()
        query("DELETE FROM tasks_message WHERE id = %(id)s", {"id": answer.id})
        assert not task.acknowledge(answer)
        return answer.body

    bench.does("work", work)
    bench.does("other", other)
    nodes = [Node(key="a", capability="work"), Node(key="b", capability="other", needs=("a",))]
    run = bench.finish(start_run(bench.project, Graph.of(nodes), inputs={}))
    assert (run.status, Task.objects.get(key="b").result) == ("completed", 42)
    [hello] = messages.receive(bob.pk, 5, 5)
    assert (str(hello.id), hello.sender) == (Task.objects.get(key="a").result, "agent:bench")


def test_message_to_nobody_fails_the_attempt_with_that_reason(bench: Bench) -> None:
    bench.does("work", lambda task: task.send({"agent": "nobody"}, "t"))
    task = submit_task(bench.project, Node(key="job", capability="work"))
    assert bench.step(task) is Outcome.FAILED
    task.refresh_from_db()
    assert error_of(task)["type"] == "invalid"
