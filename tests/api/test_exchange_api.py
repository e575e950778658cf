"""Shared context and messages over HTTP: who may write, what is answered, waiting receivers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from opscore import attempt_tokens, keys
from opscore.config import load_config
from opscore.database import query
from opscore.models import Event, Project
from tasks import writers
from tasks.models import Message, SharedEntry


@pytest.fixture
def task(api: Any, session_id: str) -> dict[str, Any]:
    """A task that `echo-1` holds."""
    api("POST", "/tasks", {"capability": "echo"})
    [task] = api("POST", f"/sessions/{session_id}/claim", {}).json()["tasks"]
    return dict(task)


@pytest.mark.django_db
class TestContext:
    def test_entry_is_written_read_and_deleted(self, api: Any, task: dict[str, Any]) -> None:
        base = f"/runs/{task['run_id']}/context"
        made = api("PUT", f"{base}/plan", {"value": {"steps": [1]}, "if_version": 0})
        assert made.status_code == 201
        assert made.json()["version"] == 1
        again = api("PUT", f"{base}/plan", {"value": None, "if_version": 1})
        assert (again.status_code, again.json()["version"]) == (200, 2)
        assert again.json()["updated_by"] == "key:test"
        assert api("GET", f"{base}/plan").json() == again.json()
        assert api("GET", base).json() == {"entries": [again.json()]}
        assert api("GET", f"/runs/{task['run_id']}").json()["context_entries"] == 1
        assert api("DELETE", f"{base}/plan?if_version=1").status_code == 409
        assert api("DELETE", f"{base}/plan?if_version=2").status_code == 204
        assert api("DELETE", f"{base}/plan").status_code == 404
        assert api("GET", f"{base}/plan").status_code == 404
        assert api("GET", base).json() == {"entries": []}

    def test_conflict_names_the_present_version(self, api: Any, task: dict[str, Any]) -> None:
        path = f"/runs/{task['run_id']}/context/plan"
        body = api("PUT", path, {"value": 1, "if_version": 7}).json()
        assert (body["status"], body["code"], body["version"]) == (409, "version_conflict", 0)
        api("PUT", path, {"value": 1})
        body = api("PUT", path, {"value": 1, "if_version": 0}).json()
        assert (body["code"], body["version"]) == ("version_conflict", 1)
        assert api("DELETE", f"{path}?if_version=5").json()["version"] == 1

    def test_attempt_writes_under_its_agents_name_until_it_is_over(
        self, make_api: Callable[..., Any], api: Any, task: dict[str, Any]
    ) -> None:
        executor = make_api("agent")
        path = f"/runs/{task['run_id']}/context/plan"
        proof = {"Opscore_Attempt": f"{task['id']}/{task['fence']}"}
        assert executor("PUT", path, {"value": 1}, **proof).json()["updated_by"] == "agent:echo-1"
        api("PUT", f"/tasks/{task['id']}/cancel")
        api("POST", "/tasks", {"capability": "echo"})
        for method in ("PUT", "DELETE"):
            answer = executor(method, path, {"value": 2}, **proof)
            assert (answer.status_code, answer.json()["code"]) == (409, "attempt_over")
        assert executor("GET", path).json()["value"] == 1
        [event, _] = Event.objects.filter(kind="write.refused").order_by("id")
        assert event.data == {"fence": task["fence"], "what": f"PUT {path}"}

    def test_attempt_writes_to_its_own_run_only(
        self, make_api: Callable[..., Any], api: Any, task: dict[str, Any]
    ) -> None:
        other = api("POST", "/tasks", {"capability": "nobody"}).json()["run_id"]
        proof = {"Opscore_Attempt": f"{task['id']}/{task['fence']}"}
        executor = make_api("agent")
        for method, path, body in (
            ("PUT", "context/plan", {"value": 1}),
            ("DELETE", "context/plan", None),
            ("POST", "messages", {"to": {"capability": "echo"}}),
        ):
            answer = executor(method, f"/runs/{other}/{path}", body, **proof)
            assert answer.status_code == 409, path
            assert "belongs to another run" in answer.json()["detail"]
        assert not SharedEntry.objects.exists()
        assert not Message.objects.exists()

    def test_writes_that_are_refused_again_and_again_leave_few_events(
        self, api: Any, task: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writers, "NOTES_KEPT", 2)
        path = f"/runs/{task['run_id']}/context/plan"
        report = {"fence": task["fence"], "status": "completed"}
        assert api("POST", f"/tasks/{task['id']}/report", report).status_code == 204
        other = api("POST", "/tasks", {"capability": "nobody"}).json()["run_id"]
        for n in range(4):
            answer = api("POST", f"/tasks/{task['id']}/report", {**report, "fence": n})
            assert answer.status_code == 409
            # Of a run that goes on, by tasks that are not its own, or of nobody.
            for key in (task["id"], uuid4()):
                put = api(
                    "PUT", f"/runs/{other}/context/a", {"value": 1}, Opscore_Attempt=f"{key}/{n}"
                )
                assert put.status_code == 409
            api("PUT", path, {"value": 1}, Opscore_Attempt=f"{task['id']}/{n}")
        assert Event.objects.filter(kind="report.refused", task_id=task["id"]).count() == 2
        assert Event.objects.filter(kind="write.refused", task_id=task["id"]).count() == 2
        assert Event.objects.filter(kind="write.refused", task_id=None).count() == 2

    def test_key_of_an_attempt_sees_nothing_once_it_is_over(
        self, api: Any, task: dict[str, Any], project: Project
    ) -> None:
        key = attempt_tokens.issue(project.pk, UUID(task["id"]), task["fence"])
        attempt = type(api)(key, api.client)
        run = f"/runs/{task['run_id']}"
        reads = (f"{run}/context", f"{run}/context/a", f"{run}/messages")
        api("PUT", f"{run}/context/a", {"value": 1})
        assert [attempt("GET", path).status_code for path in reads] == [200] * 3
        report = {"fence": task["fence"], "status": "completed"}
        assert attempt("POST", f"/tasks/{task['id']}/report", report).status_code == 204
        for path in reads:
            answer = attempt("GET", path)
            assert (answer.status_code, answer.json()["code"]) == (409, "attempt_over"), path
        assert not Event.objects.filter(kind="write.refused").exists(), "it only read"

    def test_key_of_an_attempt_leaves_no_trace_on_other_tasks(
        self, api: Any, task: dict[str, Any], project: Project
    ) -> None:
        key = attempt_tokens.issue(project.pk, UUID(task["id"]), task["fence"])
        attempt = type(api)(key, api.client)
        other = api("POST", "/tasks", {"capability": "echo"}).json()["id"]
        before = Event.objects.count()
        for verb in ("report", "heartbeat", "logs", "progress"):
            for body in ("{bad", {"fence": task["fence"], "unknown": 1}):
                assert attempt("POST", f"/tasks/{other}/{verb}", body).status_code == 404
        assert Event.objects.count() == before

    @pytest.mark.parametrize(
        "proof", ["x", "x/1", f"{UUID(int=1)}/x", f"{UUID(int=1)}", f"{UUID(int=1)}/-1"]
    )
    def test_proof_that_cannot_be_read_is_refused(
        self, api: Any, task: dict[str, Any], proof: str
    ) -> None:
        path = f"/runs/{task['run_id']}/context/plan"
        answer = api("PUT", path, {"value": 1}, Opscore_Attempt=proof)
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (
            400,
            "Opscore-Attempt",
        )

    def test_attempt_of_another_project_proves_nothing(
        self, api: Any, task: dict[str, Any]
    ) -> None:
        from opscore import keys
        from opscore.models import Project

        other = Project.objects.create(slug="other")
        foreign = type(api)(keys.create(other, "foreign", ["admin"])[1], api.client)
        made = foreign("POST", "/tasks", {"capability": "echo"}).json()
        proof = {"Opscore_Attempt": f"{task['id']}/{task['fence']}"}
        path = f"/runs/{made['run_id']}/context/a"
        assert foreign("PUT", path, {"value": 1}, **proof).status_code == 409
        assert foreign("GET", f"/runs/{task['run_id']}/context").status_code == 404
        assert foreign("PUT", f"/runs/{task['run_id']}/context/a", {"value": 1}).status_code == 404

    @pytest.mark.parametrize(
        "body",
        [{}, {"value": 1, "if_version": -1}, {"value": 1, "x": 2}, {"value": 1, "if_version": "a"}],
    )
    def test_bodies_that_make_no_sense_are_refused(
        self, api: Any, task: dict[str, Any], body: Any
    ) -> None:
        assert api("PUT", f"/runs/{task['run_id']}/context/a", body).status_code == 400

    def test_odd_keys_and_versions_are_refused(self, api: Any, task: dict[str, Any]) -> None:
        base = f"/runs/{task['run_id']}/context"
        for key in ("%20", "a%2Fb", "%C3%A4", "x" * 201):
            answer = api("PUT", f"{base}/{key}", {"value": 1})
            assert answer.status_code in {400, 404}, key
        for version in ("x", "-1", "9" * 30, ""):
            assert api("DELETE", f"{base}/a?if_version={version}").status_code == 400, version

    def test_bound_is_413(
        self, api: Any, task: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(load_config(), "shared_value_bytes", 3)
        answer = api("PUT", f"/runs/{task['run_id']}/context/a", {"value": "long"})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")

    def test_ended_run_is_read_only(self, api: Any, task: dict[str, Any]) -> None:
        path = f"/runs/{task['run_id']}/context/a"
        api("PUT", path, {"value": 1})
        api("PUT", f"/runs/{task['run_id']}/cancel")
        for method in ("PUT", "DELETE"):
            answer = api(method, path, {"value": 2})
            assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        assert api("GET", path).json()["value"] == 1

    def test_key_that_may_only_read_writes_nothing(
        self, make_api: Callable[..., Any], task: dict[str, Any]
    ) -> None:
        reader = make_api("read")
        base = f"/runs/{task['run_id']}"
        assert reader("GET", f"{base}/context").status_code == 200
        assert reader("PUT", f"{base}/context/a", {"value": 1}).status_code == 403
        assert reader("POST", f"{base}/messages", {}).status_code == 403


@pytest.mark.django_db
class TestMessages:
    def test_message_is_sent_received_and_acknowledged(
        self, make_api: Callable[..., Any], api: Any, task: dict[str, Any], session_id: str
    ) -> None:
        executor = make_api("agent")
        proof = {"Opscore_Attempt": f"{task['id']}/{task['fence']}"}
        run = f"/runs/{task['run_id']}"
        body = {"to": {"capability": "echo"}, "topic": "hello", "body": {"n": 1}, "ttl_s": 60}
        sent = executor("POST", f"{run}/messages", body, **proof)
        assert sent.status_code == 201, sent.content
        assert set(sent.json()) == {"id", "sent_at", "expires_at"}
        assert api("GET", run).json()["open_messages"] == 1
        receive = f"/sessions/{session_id}/messages/receive"
        [got] = executor("POST", receive, {"limit": 5, "lease_s": 10}).json()["messages"]
        assert got["id"] == sent.json()["id"]
        assert (got["topic"], got["body"], got["run_id"]) == ("hello", {"n": 1}, task["run_id"])
        assert (got["sender"], got["reply_to"]) == ("agent:echo-1", {"agent": "echo-1"})
        assert executor("POST", receive, {}).json() == {"messages": []}
        ack = f"/sessions/{session_id}/messages/{got['id']}/ack"
        wrong = executor("POST", ack, {"receipt": str(uuid4())})
        assert (wrong.status_code, wrong.json()["code"]) == (409, "conflict")
        for _ in range(2):
            assert executor("POST", ack, {"receipt": got["receipt"]}).status_code == 204
        assert executor("POST", ack, {}).status_code == 400
        unknown = f"/sessions/{session_id}/messages/{uuid4()}/ack"
        assert executor("POST", unknown, {"receipt": got["receipt"]}).status_code == 404
        assert api("GET", run).json()["open_messages"] == 0
        [listed] = api("GET", f"{run}/messages").json()["results"]
        assert (listed["to"], listed["deliveries"]) == ({"capability": "echo"}, 1)
        assert listed["acknowledged_at"]

    def test_expired_message_is_not_shown_as_open(self, api: Any, task: dict[str, Any]) -> None:
        run = f"/runs/{task['run_id']}"
        assert api("POST", f"{run}/messages", {"to": {"capability": "echo"}}).status_code == 201
        assert len(api("GET", f"{run}/messages").json()["results"]) == 1
        Message.objects.update(expires_at="2020-01-01T00:00:00Z")
        assert api("GET", f"{run}/messages").json()["results"] == []
        assert api("GET", run).json()["open_messages"] == 0

    def test_answer_goes_where_the_message_says(
        self, api: Any, task: dict[str, Any], session_id: str
    ) -> None:
        path = f"/runs/{task['run_id']}/messages"
        proof = {"Opscore_Attempt": f"{task['id']}/{task['fence']}"}
        api("POST", path, {"to": {"agent": "echo-1"}, "topic": "q"}, **proof)
        receive = f"/sessions/{session_id}/messages/receive"
        [got] = api("POST", receive, {}).json()["messages"]
        answer = api("POST", path, {"to": got["reply_to"], "topic": "a"})
        assert answer.status_code == 201
        [listed] = [row for row in api("GET", path).json()["results"] if row["topic"] == "a"]
        assert listed["to"] == {"agent": "echo-1"}

    def test_program_with_the_key_of_its_session_may_answer_what_it_holds(
        self, api: Any, task: dict[str, Any], session_id: str, project: Project
    ) -> None:
        """Also where it has no task of the run."""
        key = keys.create_for_session(project, "program", UUID(session_id))
        program = type(api)(key, api.client)
        run = f"/runs/{api('POST', '/tasks', {'capability': 'nobody'}).json()['run_id']}"
        answer = {"to": {"agent": "echo-1"}, "topic": "a"}
        assert program("POST", f"{run}/messages", answer).status_code == 404
        api("POST", f"{run}/messages", {"to": {"agent": "echo-1"}, "topic": "q"})
        receive = f"/sessions/{session_id}/messages"
        [question] = program("POST", f"{receive}/receive", {}).json()["messages"]
        assert program("GET", f"{run}/context").status_code == 200
        assert program("POST", f"{run}/messages", answer).status_code == 201
        [reply] = program("POST", f"{receive}/receive", {}).json()["messages"]
        assert (reply["topic"], reply["sender"]) == ("a", "agent:echo-1")
        for got in (question, reply):
            ack = program("POST", f"{receive}/{got['id']}/ack", {"receipt": got["receipt"]})
            assert ack.status_code == 204
        assert program("POST", f"{run}/messages", answer).status_code == 404

    def test_agent_that_is_sent_its_tasks_receives_no_messages(
        self, api: Any, task: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(load_config(), "push_networks", "127.0.0.0/8")
        body = {"name": "ann", "kind": "http", "capabilities": ["x"], "url": "http://127.0.0.1:9"}
        assert api("POST", "/agents", body).status_code == 201
        answer = api("POST", f"/runs/{task['run_id']}/messages", {"to": {"agent": "ann"}})
        assert answer.status_code == 400
        [problem] = answer.json()["errors"]
        assert problem["path"] == "to.agent"
        assert "receives no messages" in problem["message"]

    def test_same_idempotency_key_sends_once(self, api: Any, task: dict[str, Any]) -> None:
        path = f"/runs/{task['run_id']}/messages"
        body = {"to": {"capability": "echo"}, "topic": "hello"}
        ids = {api("POST", path, body, Idempotency_Key="k").json()["id"] for _ in range(2)}
        assert len(ids) == 1
        assert Message.objects.count() == 1

    @pytest.mark.parametrize(
        "change",
        [
            {"to": "echo-1"},
            {"to": {}},
            {"to": {"agent": "echo-1", "capability": "echo"}},
            {"to": {"agent": "ech"}},
            {"topic": None},
            {"topic": "x" * 101},
            {"ttl_s": 0},
            {"ttl_s": 1e9},
            {"extra": 1},
        ],
    )
    def test_messages_that_make_no_sense_are_refused(
        self, api: Any, task: dict[str, Any], change: dict[str, Any]
    ) -> None:
        body = {"to": {"agent": "echo-1"}, "topic": "t", **change}
        answer = api("POST", f"/runs/{task['run_id']}/messages", body)
        assert answer.status_code == 400, answer.content
        assert not Message.objects.exists()

    def test_ended_session_receives_nothing(self, api: Any, session_id: str) -> None:
        api("DELETE", f"/sessions/{session_id}")
        receive = f"/sessions/{session_id}/messages"
        assert api("POST", f"{receive}/receive", {}).status_code == 409
        ack = {"receipt": str(uuid4())}
        assert api("POST", f"{receive}/{uuid4()}/ack", ack).status_code == 409


@pytest.mark.django_db(transaction=True)
class TestWaiting:
    """Against a live server, where a receiver waits for a message."""

    @pytest.fixture
    def http(self, server: Any) -> Iterator[httpx.Client]:
        with server.client() as client:
            yield client

    def test_waiting_receiver_gets_a_message_as_soon_as_it_is_sent(
        self, server: Any, http: httpx.Client, wait_until: Any
    ) -> None:
        body = {"name": "ann", "kind": "remote", "capabilities": ["review"]}
        assert http.post("/agents", json=body).status_code == 201
        session = http.post("/agents/ann/sessions", json={}).json()["session_id"]
        run = http.post("/tasks", json={"capability": "nobody"}).json()["run_id"]
        receive = f"/sessions/{session}/messages/receive"
        delays = []
        for to in ({"agent": "ann"}, {"capability": "review"}) * 3:
            with ThreadPoolExecutor(1) as pool, server.client() as other:
                waiting = pool.submit(other.post, receive, json={"wait_s": 20})
                wait_until(lambda: query(_LISTENERS, {})[0]["n"])
                began = time.monotonic()
                sent = http.post(f"/runs/{run}/messages", json={"to": to, "topic": "t"}).json()
                answer = waiting.result(10)
                delays.append(time.monotonic() - began)
            assert [m["id"] for m in answer.json()["messages"]] == [sent["id"]]
        # By announcement: the next look of a poll comes after up to two seconds.
        assert sorted(delays)[2] < 0.5


_LISTENERS = """
SELECT count(*) AS n FROM pg_stat_activity
 WHERE datname = current_database() AND query LIKE 'LISTEN %%'
"""
