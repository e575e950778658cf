"""Agents, tasks and the executor protocol: one suite for the live platform and the one in memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import yaml

from opscore.config import ROOT
from opscore_sdk import (
    AuthenticationError,
    Client,
    ConflictError,
    InvalidError,
    NotFoundError,
)
from opscore_sdk.asking import ask
from opscore_sdk.protocol import ClaimedTask
from tests.sdk.places import Place

SCHEMAS = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text())["components"]["schemas"]


def begin(api: Client, name: str = "echo", *, labels: tuple[str, ...] = ()) -> str:
    """Register an agent that offers `echo` and begin its session."""
    api.register_agent(name, "remote", capabilities=["echo"], labels=labels)
    return api.begin_session(name, host="here", pid=7).session_id


def one(api: Client, session: str) -> ClaimedTask:
    """Claim the one task that there is."""
    [task] = api.claim(session, limit=5)
    return task


def test_answers_have_the_shape_of_the_api_document(api: Client) -> None:
    session = begin(api)
    made = api.submit("echo")
    for name, raw in {
        "TaskDetail": api.task(made.id).raw,
        "Task": api.tasks()[0].raw,
        "AgentDetail": api.agent("echo").raw,
        "Agent": api.agents()[0].raw,
        "RunDetail": api.run(made.run_id).raw,
        "Run": api.runs()[0].raw,
        "RunTask": api.run(made.run_id).tasks[0].raw,
        "Session": api.agent("echo").raw["sessions"][0],
        "StartedSession": api.begin_session("echo").raw,
        "Health": api.health(),
    }.items():
        assert set(raw) == set(SCHEMAS[name]["properties"]), name
    assert session


def test_a_sticky_key_stays_with_its_agent_while_that_lives(api: Client) -> None:
    sessions = {name: begin(api, name) for name in ("ann", "ben")}
    first = api.submit("echo", sticky="k")
    [(bound, _)] = [(name, got) for name, own in sessions.items() if (got := api.claim(own))]
    [other] = sessions.keys() - {bound}
    second = api.submit("echo", sticky="k")
    assert api.claim(sessions[other]) == []
    assert one(api, sessions[bound]).id == second.id
    # When it has gone, its tasks and the key with them are another one's.
    api.end_session(sessions[bound])
    again = [*api.claim(sessions[other], wait_s=10), *api.claim(sessions[other], wait_s=10)]
    assert {task.id for task in again} == {first.id, second.id}
    back = api.begin_session(bound).session_id
    third = api.submit("echo", sticky="k")
    assert api.claim(back) == []
    assert one(api, sessions[other]).id == third.id


def test_a_preferred_agent_that_is_free_goes_first(api: Client) -> None:
    api.register_agent("plain", "remote", capabilities=["echo"])
    api.register_agent("strong", "remote", capabilities=["echo"], labels=["gpu"], concurrency=1)
    plain, strong = (api.begin_session(name).session_id for name in ("plain", "strong"))
    first = api.submit("echo", prefers={"gpu": 5})
    assert api.claim(plain) == []
    [held] = api.claim(strong)
    # A wish holds nothing up: the one that is liked has no place left.
    second = api.submit("echo", prefers={"gpu": 5})
    assert (held.id, one(api, plain).id) == (first.id, second.id)
    wrong: Any
    for wrong in ({"gpu": 101}, {"gpu": "much"}, ["gpu"]):
        with pytest.raises(InvalidError):
            api.submit("echo", prefers=wrong)


def test_agents_are_registered_renewed_and_listed(api: Client) -> None:
    made = api.register_agent("a", "remote", capabilities=["x"], labels=["gpu"])
    assert (made.status, made.capabilities, made.labels) == ("initializing", ["x"], ["gpu"])
    assert api.register_agent("a", "remote", capabilities=["y"]).id == made.id
    assert api.agent(made.id).capabilities == ["y"]
    api.register_agent("b", "remote", capabilities=["x"])
    assert [agent.name for agent in api.agents()] == ["b", "a"]
    assert [agent.name for agent in api.agents(capability="y")] == ["a"]
    # The live platform misses a host that offers such a program first.
    with pytest.raises((ConflictError, InvalidError)):
        api.register_agent("a", "process")
    with pytest.raises(NotFoundError):
        api.agent("nobody")
    with pytest.raises(ConflictError):
        api.restart_agent("a")


def test_a_task_is_claimed_and_its_result_recorded(api: Client) -> None:
    session = begin(api)
    made = api.submit("echo", inputs={"n": 1}, key="mine", priority=7)
    assert api.agent("echo").status == "active"
    task = one(api, session)
    assert (task.id, task.inputs, task.attempt, task.key) == (made.id, {"n": 1}, 1, "mine")
    assert (task.run_id, task.priority, task.capability) == (made.run_id, 7, "echo")
    assert task.idempotency_key == task.id
    assert (api.task(task.id).status, api.task(task.id).agent_name) == ("running", "echo")
    assert api.agent("echo").status == "busy"
    assert api.claim(session) == []
    api.report_completed(task.id, task.fence, {"ok": [1, None]})
    done = api.task(task.id)
    assert (done.status, done.result, done.agent_name) == ("completed", {"ok": [1, None]}, "echo")
    assert api.run(task.run_id).status == "completed"
    with pytest.raises(ConflictError):
        api.report_completed(task.id, task.fence, 2)
    assert api.task(task.id).result == {"ok": [1, None]}


def test_the_most_urgent_come_first_and_then_the_oldest(api: Client) -> None:
    session = begin(api)
    made = [api.submit("echo", priority=priority).id for priority in (1, 9, 5, 9)]
    claimed = [task.id for task in api.claim(session, limit=3)]
    assert claimed == [made[1], made[3], made[2]]


def test_many_are_submitted_at_once_or_none(api: Client) -> None:
    session = begin(api)
    made = api.submit_many([{"capability": "echo", "key": f"k{number}"} for number in range(5)])
    assert [task.key for task in made] == [f"k{number}" for number in range(5)]
    assert api.claim(session, limit=1)[0].id == made[0].id
    assert api.task(made[4].id).run_id == made[4].run_id
    with pytest.raises(InvalidError) as wrong:
        api.submit_many([{"capability": "echo"}, {"capability": "echo", "priority": 10}])
    assert [problem.path for problem in wrong.value.errors] == ["tasks[1].priority"]
    assert len(api.tasks()) == 5


def test_labels_and_pauses_keep_tasks_away(api: Client) -> None:
    plain, labelled = begin(api, "plain"), begin(api, "labelled", labels=("gpu", "big"))
    api.submit("echo", requires=["gpu"])
    assert api.claim(plain) == []
    api.pause_agent("labelled")
    assert api.claim(labelled) == []
    api.resume_agent("labelled")
    run = api.runs()[0]
    assert api.pause_run(run.id).status == "paused"
    assert api.claim(labelled) == []
    assert api.resume_run(run.id).status == "running"
    assert len(api.claim(labelled)) == 1


@pytest.mark.parametrize("shift", [-1, 1])
def test_another_fence_is_refused_everywhere(api: Client, shift: int) -> None:
    session = begin(api)
    api.submit("echo")
    task = one(api, session)
    fence = task.fence + shift
    with pytest.raises(ConflictError):
        api.report_completed(task.id, fence, 1)
    with pytest.raises(ConflictError):
        api.report_failed(task.id, fence, {"type": "x", "message": "y"})
    with pytest.raises(ConflictError):
        api.add_logs(task.id, fence, ["late"])
    with pytest.raises(ConflictError):
        api.set_progress(task.id, fence, fraction=0.5)
    shown = api.task(task.id)
    assert (shown.status, shown.progress, api.logs(task.id)) == ("running", None, [])


def test_a_failure_is_tried_again_by_the_tasks_policy(api: Client) -> None:
    session = begin(api)
    made = api.submit("echo", retry={"limit": 1, "initial_s": 0})
    error = {"type": "oops", "message": "no luck", "retryable": True}
    first = one(api, session)
    api.report_failed(first.id, first.fence, error)
    [second] = api.claim(session, wait_s=10)
    assert (second.id, second.attempt, second.fence > first.fence) == (made.id, 2, True)
    assert second.idempotency_key == first.idempotency_key
    api.report_failed(second.id, second.fence, error)
    failed = api.task(made.id)
    assert (failed.status, failed.attempt) == ("failed", 2)
    assert [tried.outcome for tried in failed.attempts] == ["failed", "failed"]
    for told in (failed.error, failed.attempts[0].error):
        assert told is not None
        assert (told["type"], told["message"]) == ("oops", "no luck")
    assert api.run(made.run_id).error is not None


def test_a_failure_that_is_final_is_not_tried_again(api: Client) -> None:
    session = begin(api)
    api.submit("echo", retry={"limit": 5, "initial_s": 0})
    task = one(api, session)
    api.report_failed(task.id, task.fence, {"type": "x", "message": "y", "retryable": False})
    assert api.task(task.id).status == "failed"


def test_a_heartbeat_names_what_is_not_wanted(api: Client) -> None:
    session = begin(api)
    for _ in range(2):
        api.submit("echo")
    kept, lost = api.claim(session, limit=2)
    assert api.cancel_task(lost.id).status == "cancelled"
    held = [(kept.id, kept.fence), (lost.id, lost.fence)]
    assert api.heartbeat(session, held) == [lost.id]
    assert api.heartbeat(session, [(kept.id, kept.fence + 1)]) == [kept.id]
    with pytest.raises(ConflictError):
        api.report_completed(lost.id, lost.fence, 1)
    with pytest.raises(ConflictError):
        api.cancel_task(lost.id)
    assert api.task(lost.id).attempts[0].outcome == "cancelled"


def test_a_session_that_ends_gives_its_tasks_back(api: Client) -> None:
    session = begin(api)
    api.submit("echo")
    first = one(api, session)
    api.end_session(session)
    api.end_session(session)
    assert api.agent("echo").status == "terminated"
    for call in (lambda: api.claim(session), lambda: api.heartbeat(session, [])):
        with pytest.raises(ConflictError, match="begin a new one"):
            call()
    back = api.task(first.id)
    assert (back.status, back.losses, back.attempt) == ("queued", 1, 1)
    second = one(api, api.begin_session("echo").session_id)
    assert (second.id, second.fence > first.fence, second.attempt) == (first.id, True, 1)
    with pytest.raises(ConflictError):
        api.report_completed(first.id, first.fence, 1)


def test_a_new_session_ends_the_one_before(api: Client) -> None:
    session = begin(api)
    newer = api.begin_session("echo")
    assert newer.heartbeat_s == 10
    with pytest.raises(ConflictError):
        api.heartbeat(session, [])
    assert api.heartbeat(newer.session_id, []) == []
    sessions = api.agent("echo").raw["sessions"]
    assert [bool(row["ended_at"]) for row in sessions] == [False, True]


def test_a_stopped_agent_begins_no_session(api: Client) -> None:
    session = begin(api)
    assert api.stop_agent("echo").status == "terminated"
    with pytest.raises(ConflictError):
        api.claim(session)
    with pytest.raises(ConflictError, match="was stopped"):
        api.begin_session("echo")
    begin(api)


def test_a_waiting_claim_gets_a_task_when_it_is_submitted(api: Client, place: Place) -> None:
    session = begin(api)
    assert api.claim(session, wait_s=0.2) == []
    with ThreadPoolExecutor(1) as pool, place.client() as other:
        waiting = pool.submit(other.claim, session, wait_s=20)
        made = api.submit("echo")
        [task] = waiting.result(10)
    assert task.id == made.id


def test_a_key_makes_a_repeated_request_one(api: Client) -> None:
    first = api.submit("echo", idempotency_key="k1")
    assert api.submit("echo", idempotency_key="k1").id == first.id
    assert len(api.tasks()) == 1
    with pytest.raises(InvalidError) as other:
        api.submit("echo", inputs={"n": 2}, idempotency_key="k1")
    assert (other.value.status, other.value.code) == (422, "idempotency_mismatch")


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("/tasks", {}, "capability"),
        ("/tasks", {"capability": "x", "priority": 10}, "priority"),
        ("/tasks", {"capability": "x", "timeout_s": 0}, "timeout_s"),
        ("/tasks", {"capability": "x", "capabilty": 1}, "capabilty"),
        ("/agents", {"name": "a b", "kind": "remote"}, "name"),
        ("/agents", {"name": "a", "kind": "robot"}, "kind"),
        ("/agents/echo/sessions", {"pid": -1}, "pid"),
        ("/sessions/S/claim", {"limit": 0}, "limit"),
        ("/sessions/S/claim", {"wait_s": 31}, "wait_s"),
        ("/sessions/S/claim", {"x": 1}, "x"),
        ("/tasks/T/report", {"status": "completed"}, "fence"),
        ("/tasks/T/report", {"fence": 1, "status": "done"}, "status"),
        ("/tasks/T/report", {"fence": 1, "status": "failed"}, "error"),
        ("/tasks/T/logs", {"fence": 1}, "lines"),
        ("/tasks/T/logs", {"fence": 1, "lines": [], "stream": "tape"}, "stream"),
        ("/tasks/T/progress", {"fence": 1, "fraction": 2}, "fraction"),
        ("/tasks/T/progress", {"fraction": 1}, "fence"),
        ("/tasks/T/progress", {"fence": 1, "message": "x" * 501}, "message"),
    ],
)
def test_bad_input_is_named(api: Client, path: str, body: dict[str, Any], where: str) -> None:
    session = begin(api)
    api.submit("echo")
    task = one(api, session)
    path = path.replace("/S/", f"/{session}/").replace("/T/", f"/{task.id}/")
    with pytest.raises(InvalidError) as wrong:
        api.hold(ask("POST", path, body=body, repeatable=False))
    assert [problem.path for problem in wrong.value.errors] == [where]
    assert api.task(task.id).status == "running"


@pytest.mark.parametrize("text", ["{", "[1]", '"text"'])
def test_bodies_that_are_no_object_are_refused(api: Client, text: str) -> None:
    with pytest.raises(InvalidError):
        api.hold(ask("POST", "/tasks", text=text))


def test_what_is_not_there_is_said(api: Client) -> None:
    nothing = "00000000-0000-7000-8000-000000000000"
    for call in (api.task, api.run, api.cancel_task, api.end_session, api.claim, api.logs):
        with pytest.raises(NotFoundError, match="There is no"):
            call(nothing)


def test_a_wrong_key_opens_nothing(place: Place) -> None:
    with place.client() as client:
        client._http.headers["Authorization"] = "Bearer ok_wrong_key"
        with pytest.raises(AuthenticationError):
            client.tasks()
        assert client.health()["status"] == "ok"


def test_logs_are_kept_in_order_and_filtered(api: Client) -> None:
    session = begin(api)
    api.submit("echo")
    task = one(api, session)
    api.add_logs(task.id, task.fence, ["one", "  two", ""])
    api.add_logs(task.id, task.fence, ["three\nfour"], stream="stderr")
    lines = api.logs(task.id)
    assert [line.text for line in lines] == ["one", "  two", "three", "four"]
    assert [line.stream for line in lines] == ["log", "log", "stderr", "stderr"]
    assert [line.text for line in api.logs(task.id, stream="stderr")] == ["three", "four"]
    assert [line.text for line in api.logs(task.id, limit=2)] == ["three", "four"]
    assert api.logs(task.id, attempt=2) == []


def test_progress_shows_the_latest_word(api: Client) -> None:
    session = begin(api)
    made = api.submit("echo", retry={"limit": 1, "initial_s": 0})
    assert made.progress is None
    task = one(api, session)
    api.set_progress(task.id, task.fence, fraction=0.25, message="reading")
    api.set_progress(task.id, task.fence, fraction=0.5)
    told = api.task(task.id).progress
    assert told is not None
    assert (told.fraction, told.message, told.attempt) == (0.5, "", 1)
    assert told.updated_at is not None
    api.report_failed(task.id, task.fence, {"type": "x", "message": "y"})
    [again] = api.claim(session, wait_s=10)
    api.set_progress(again.id, again.fence, message="again")
    told = api.task(task.id).progress
    assert told is not None
    assert (told.fraction, told.message, told.attempt) == (None, "again", 2)


def test_lists_are_filtered_and_go_on_over_pages(api: Client) -> None:
    made = [api.submit("echo" if number % 2 else "other").id for number in range(5)]
    assert [task.id for task in api.tasks()] == made[::-1]
    assert [task.id for task in api.tasks(capability="echo")] == [made[3], made[1]]
    first = api.hold(ask("GET", "/tasks", query={"limit": 2}))
    assert [row["id"] for row in first["results"]] == [made[4], made[3]]
    path, query = first["next"].removeprefix("/api/v1").split("?")
    second = api.hold(ask("GET", path, query=dict(httpx.QueryParams(query))))
    assert [row["id"] for row in second["results"]] == [made[2], made[1]]
    session = begin(api)
    [task] = api.claim(session)
    assert [row.id for row in api.tasks(status="running")] == [task.id]
    assert [row.id for row in api.tasks(agent="echo")] == [task.id]
    with pytest.raises(InvalidError):
        api.hold(ask("GET", "/tasks", query={"limit": 0}))


def test_runs_of_one_task_are_cancelled(api: Client) -> None:
    made = api.submit("echo")
    assert api.cancel_run(made.run_id).status == "cancelled"
    assert api.task(made.id).status == "cancelled"
    assert [run.status for run in api.runs(status="cancelled")] == ["cancelled"]
    assert [run.id for run in api.runs(parent="none")] == [made.run_id]
    assert api.runs(parent=made.run_id) == []
    with pytest.raises(ConflictError):
        api.cancel_run(made.run_id)
    with pytest.raises(ConflictError):
        api.pause_run(made.run_id)
