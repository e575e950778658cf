"""The client against a live platform, and its behaviour when that is not there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest

import opscore_sdk
from opscore_sdk import (
    AuthenticationError,
    Client,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    ServerError,
    TooLargeError,
    UnreachableError,
    WaitTimeoutError,
)
from opscore_sdk.asking import ask
from opscore_sdk.errors import ApiError, OpsCoreError
from opscore_sdk.place import root_of

SUM = """
name: sum
inputs: {type: object, properties: {n: {type: integer}, fail: {type: boolean, default: false}}}
tasks:
  a: {capability: add, with: {n: "${{ inputs.n }}", fail: "${{ inputs.fail }}"}}
  b: {capability: add, needs: [a], with: {n: "${{ tasks.a.result }}", one: 1}}
outputs: {total: "${{ tasks.b.result }}"}
"""


@pytest.mark.usefixtures("worker")
def test_a_workflow_is_uploaded_executed_and_waited_for(client: Client) -> None:
    assert (client.validate(SUM).tasks, client.validate(SUM).warnings) == (2, ())
    uploaded = client.upload(SUM)
    assert (uploaded.name, uploaded.created) == ("sum", True)
    assert client.upload(SUM).created is False
    run = client.execute("sum", inputs={"n": 5}, priority=7)
    seen = list(client.watch(run.id, every_s=0.05, timeout_s=20))
    last = seen[-1]
    assert last.has_ended
    assert (last.status, last.outputs, last.priority) == ("completed", {"total": 6}, 7)
    assert [task.key for task in last.tasks] == ["a", "b"]
    assert last.tasks[1].needs == ["a"]
    assert last.tasks[0].agent_name == "adder"
    assert isinstance(last.completed_at, datetime)
    assert client.run(run.id).raw["id"] == run.id
    assert [row.id for row in client.runs(workflow="sum", status="completed")] == [run.id]
    assert client.workflow("sum").definition["name"] == "sum"
    assert [row.name for row in client.workflows()] == ["sum"]
    assert client.health()["status"] == "ok"


@pytest.mark.usefixtures("worker")
def test_tasks_agents_logs_and_events(client: Client) -> None:
    task = client.submit("add", inputs={"a": 2, "b": 3}, key="mine", priority=1)
    run = client.wait(task.run_id, every_s=0.05, timeout_s=20)
    assert run.status == "completed"
    done = client.task(task.id)
    assert (done.result, done.has_ended, done.key) == (5, True, "mine")
    assert [row.id for row in client.tasks(capability="add")] == [task.id]
    assert client.logs(task.id) == []
    assert [agent.name for agent in client.agents(capability="add")] == ["adder"]
    assert client.pause_agent("adder").paused
    assert not client.agent("adder").is_at_hand
    assert client.resume_agent("adder").is_at_hand
    assert client.agent("adder").kind == "remote"
    assert client.events(kind="agent.")
    waiting = client.submit("nobody")
    assert client.cancel_task(waiting.id).status == "cancelled"
    with pytest.raises(ConflictError):
        client.cancel_run(waiting.run_id)


def test_runs_are_drawn_paused_signalled_and_run_again(client: Client) -> None:
    client.upload(SUM)
    assert "a" in client.draw(SUM)
    assert client.graph("sum", notation="mermaid").startswith("flowchart")
    run = client.execute("sum", inputs={"n": 1})
    assert client.pause_run(run.id).status == "paused"
    assert client.resume_run(run.id).status == "running"
    assert client.signal(run.id, "paid", {"sum": 3})["payload"] == {"sum": 3}
    assert [row.id for row in client.runs(parent="none")] == [run.id]
    assert client.runs(parent=run.id) == []
    with pytest.raises(ConflictError):
        client.rerun(run.id)
    client.cancel_run(run.id)
    assert client.rerun(run.id, from_tasks=["a"], inputs={"n": 2}).inputs == {"n": 2}
    assert not client.approvals()
    assert not client.schedules()
    with pytest.raises(ConflictError):
        client.approve(run.tasks[0].id)
    with pytest.raises(ConflictError):
        client.reject(run.tasks[0].id, "no")


def test_agents_are_registered_and_stopped(client: Client) -> None:
    made = client.register_agent("r", "remote", capabilities=["x"], labels=["gpu"])
    assert (made.capabilities, made.labels) == (["x"], ["gpu"])
    with pytest.raises(ConflictError):
        client.restart_agent("r")
    assert client.stop_agent("r").status == "terminated"


def test_lists_go_on_over_pages(client: Client) -> None:
    for number in range(5):
        client.register_agent(f"n{number}", "remote")
    asked: list[str] = []
    paged = Client(client.address, "k", transport=_Small(client, asked))
    assert [agent.name for agent in paged.agents(limit=4)] == ["n4", "n3", "n2", "n1"]
    assert len(asked) == 2


class _Small(httpx.BaseTransport):
    """Gives at most two rows a page, whatever is asked for."""

    def __init__(self, client: Client, asked: list[str]) -> None:
        self._client, self._asked = client, asked

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._asked.append(str(request.url))
        query = dict(request.url.params)
        query["limit"] = "2"
        return httpx.Response(200, json=self._client.hold(ask("GET", "/agents", query=query)))


def test_what_the_platform_refuses_becomes_an_error_of_its_own(client: Client) -> None:
    (warning,) = client.validate("name: x\ntasks:\n  a: {capability: nobody}\n").warnings
    assert (warning.line, warning.path) == (3, "tasks.a.capability")
    with pytest.raises(NotFoundError, match="no workflow"):
        client.execute("nothing")
    with pytest.raises(InvalidError) as caught:
        client.upload("name: x\ntasks:\n  a: {capabilty: add}\n")
    problem = caught.value.errors[0]
    assert (problem.line, problem.path.startswith("tasks.a")) == (3, True)
    assert caught.value.code == "invalid"
    assert caught.value.request_id
    with pytest.raises(TooLargeError):
        client.submit("add", inputs={"x": "y" * 5_000_000})
    with Client(client.address, "ok_wrong_key") as stranger, pytest.raises(AuthenticationError):
        stranger.runs()


def test_waiting_ends_when_its_time_is_over(client: Client) -> None:
    task = client.submit("nobody")
    with pytest.raises(WaitTimeoutError, match="goes on"):
        client.wait(task.run_id, every_s=0.05, timeout_s=0.2)


@pytest.fixture
def answering() -> Iterator[Callable[..., tuple[Client, list[httpx.Request]]]]:
    """Make clients of a server that gives these answers, one after the other."""
    made: list[Client] = []

    def make(*answers: httpx.Response | Exception) -> tuple[Client, list[httpx.Request]]:
        left, asked = list(answers), []

        def handle(request: httpx.Request) -> httpx.Response:
            asked.append(request)
            answer = left.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        made.append(Client("http://x", "k", transport=httpx.MockTransport(handle)))
        return made[-1], asked

    yield make
    for client in made:
        client.close()


def test_a_failed_connection_is_tried_again_with_the_same_key(answering: Any) -> None:
    ok = httpx.Response(201, json={"id": "1", "key": "task", "status": "queued"})
    away = httpx.ConnectError("refused")
    client, asked = answering(away, httpx.Response(503), ok)
    assert client.submit("add").id == "1"
    keys = {request.headers["Idempotency-Key"] for request in asked}
    assert (len(asked), len(keys)) == (3, 1)
    assert json.loads(asked[-1].content)["capability"] == "add"


def test_it_waits_as_long_as_it_is_asked_to(answering: Any) -> None:
    busy = httpx.Response(
        503, headers={"Retry-After": "1"}, json={"detail": "the database is away"}
    )
    done = {"id": "1", "status": "completed"}
    client, asked = answering(busy, httpx.Response(200, json=done))
    began = time.monotonic()
    assert client.wait("1", patience_s=30).status == "completed"
    assert time.monotonic() - began >= 1
    # Longer than the four tries without patience; a date as Retry-After asks for nothing.
    odd = httpx.Response(502, headers={"Retry-After": "Sat, 21 Nov 2026 10:00:00 GMT"})
    away = [odd, *[httpx.ConnectError("refused")] * 4]
    client, asked = answering(*away, httpx.Response(200, json=done))
    assert client.wait("1", patience_s=30).status == "completed"
    assert len(asked) == 6


def test_patience_is_no_longer_than_the_time_that_is_left(answering: Any) -> None:
    client, asked = answering(*[httpx.ConnectError("refused")] * 6)
    with pytest.raises(UnreachableError):
        client.wait("1", timeout_s=0.01, patience_s=600)
    assert len(asked) == 4


def test_it_gives_up_after_a_few_tries_with_one_sentence(answering: Any) -> None:
    client, asked = answering(*[httpx.ConnectError("refused")] * 4)
    with pytest.raises(UnreachableError, match="Nobody answers at http://x"):
        client.runs()
    assert len(asked) == 4
    client, _ = answering(*[httpx.ReadTimeout("late")] * 4)
    with pytest.raises(UnreachableError, match="did not answer in time"):
        client.runs()
    client, _ = answering(*[httpx.RemoteProtocolError("")] * 4)
    with pytest.raises(UnreachableError, match="RemoteProtocolError"):
        client.runs()


def test_answers_that_are_not_ops_core_are_errors_too(answering: Any) -> None:
    client, _ = answering(httpx.Response(404, text="<html>nginx</html>"))
    with pytest.raises(NotFoundError, match="is it Ops-Core"):
        client.runs()
    client, _ = answering(httpx.Response(500, json={"detail": "broken", "errors": ["odd"]}))
    with pytest.raises(ServerError, match="broken") as caught:
        client.runs()
    assert str(caught.value.errors[0]) == "odd"
    client, _ = answering(httpx.Response(403, json={"detail": "no"}))
    with pytest.raises(ForbiddenError):
        client.runs()
    client, _ = answering(httpx.Response(418))
    with pytest.raises(ApiError) as other:
        client.runs()
    assert type(other.value) is ApiError


@pytest.mark.parametrize(
    "given", ["http://h", "http://h/", "http://h/v1", "http://h/api/v1/", " http://h "]
)
def test_addresses_may_end_in_the_version(given: str) -> None:
    assert root_of(given) == "http://h"


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(UnreachableError, match="no address"):
        root_of("localhost:8000")


def test_exports_are_what_is_promised() -> None:
    for name in opscore_sdk.__all__:
        assert hasattr(opscore_sdk, name)
    errors = [value for value in vars(opscore_sdk).values() if isinstance(value, type)]
    assert all(issubclass(kind, OpsCoreError) for kind in errors if kind.__name__.endswith("Error"))
