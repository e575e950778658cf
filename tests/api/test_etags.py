"""ETags: a stale edit is refused, an unchanged answer is not sent again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.db import connections, transaction

from agents.models import Agent, AgentSession, Host
from opscore.api import etags
from opscore.database import query
from opscore.models import Project, Secret
from tests.conftest import WaitUntil
from workflows import schedule_api, schedules
from workflows.models import Schedule

pytestmark = pytest.mark.django_db

WORKFLOW = "name: pay\ntasks: {a: {capability: x}}"
SCHEDULE = {"name": "nightly", "workflow": "pay", "cron": "0 3 * * *"}
YAML = {"Content_Type": "application/yaml"}


@pytest.fixture
def world(api: Any, project: Project, session_id: str) -> None:
    """One of everything that can be edited."""
    assert api("POST", "/workflows", WORKFLOW, **YAML).status_code == 201
    assert api("POST", "/schedules", SCHEDULE).status_code == 201
    assert api("PUT", "/capabilities/echo/route", {"strategy": "fastest"}).status_code == 200


#: Path, an edit (method, body, headers) of it, and whether it is still there afterwards.
EDITS = [
    ("/schedules/nightly", "PATCH", {"cron": "0 4 * * *"}, {}),
    ("/schedules/nightly", "DELETE", None, {}),
    ("/capabilities/echo/route", "PUT", {"strategy": "round_robin"}, {}),
    ("/capabilities/echo/route", "DELETE", None, {}),
    ("/breakers/resource/openai", "PUT", {"min_calls": 7}, {}),
    ("/workflows/pay", "PUT", WORKFLOW + "\ndescription: more", YAML),
    ("/agents/echo-1", "DELETE", None, {}),
]


@pytest.mark.parametrize(("path", "method", "body", "headers"), EDITS)
def test_an_edit_of_what_has_changed_is_refused(
    api: Any, world: None, *, path: str, method: str, body: Any, headers: dict[str, str]
) -> None:
    shown = api("GET", path)
    stale = '"0123456789abcdef.0123456789abcdef"'
    refused = api(method, path, body, If_Match=stale, **headers)
    assert (refused.status_code, refused.json()["code"]) == (412, "precondition_failed")
    assert set(refused.json()) >= {"detail", "errors", "request_id"}
    assert api("GET", path)["ETag"] == shown["ETag"]
    done = api(method, path, body, If_Match=f'"x", {shown["ETag"]}', **headers)
    assert done.status_code < 300, done.content
    again = api(method, path, body, If_Match=shown["ETag"], **headers)
    assert again.status_code in {404, 412}


def test_what_a_life_changes_refuses_no_edit(api: Any, world: None) -> None:
    before = api("GET", "/agents/echo-1")["ETag"]
    AgentSession.objects.update(seen_at="2020-01-01T00:00:00Z")
    Agent.objects.update(restarts=3)
    after = api("GET", "/agents/echo-1")["ETag"]
    assert after != before
    assert after.split(".")[0] == before.split(".")[0]
    assert api("DELETE", "/agents/echo-1", If_Match=before).status_code == 202


def test_pools_are_edited_by_what_was_read(api: Any, project: Project) -> None:
    offer = {"kind": "process", "capabilities": ["review"], "labels": [], "replicas": 1}
    Host.objects.create(project=project, name="here", pid=1, specs={"review": offer})
    path = "/hosts/here/specs/review"
    assert api("GET", "/hosts/here/specs/revue").status_code == 404
    shown = api("GET", path)
    assert api("PUT", path, {"replicas": 2}, If_Match=shown["ETag"]).status_code == 200
    assert api("PUT", path, {"replicas": 3}, If_Match=shown["ETag"]).status_code == 412


def test_the_first_of_two_wins(api: Any, world: None) -> None:
    changed = api("PATCH", "/schedules/nightly", {"cron": "0 5 * * *"})
    assert changed["ETag"] == api("GET", "/schedules/nightly")["ETag"]


@pytest.mark.parametrize("tag", ["", "true", "abc", '"a" "b"', "*, *"])
def test_what_is_no_tag_is_refused(api: Any, world: None, tag: str) -> None:
    for path in ("/schedules/nightly", "/capabilities/none/route"):
        assert api("DELETE", path, If_Match=tag).status_code == 400
    assert api("GET", "/schedules/nightly").status_code == 200


def test_create_only(api: Any, world: None) -> None:
    text = WORKFLOW.replace("pay", "new")
    first = api("PUT", "/workflows/new", text, If_None_Match="*", **YAML)
    assert first.status_code == 201
    again = api("PUT", "/workflows/new", text + "\ndescription: b", If_None_Match="*", **YAML)
    assert again.status_code == 412
    other = api("PUT", "/workflows/other", text, **YAML)
    assert (other.status_code, other.json()["errors"][0]["path"]) == (400, "name")


@pytest.mark.parametrize("weak", ["", "W/"])
def test_what_the_client_has_is_not_sent_again(api: Any, world: None, weak: str) -> None:
    task = api("POST", "/tasks", {"capability": "x"}).json()
    for path in ("/workflows/pay", "/schedules/nightly", f"/tasks/{task['id']}"):
        shown = api("GET", path)
        same = api("GET", path, If_None_Match=f'"x", {weak}{shown["ETag"]}')
        assert (same.status_code, same.content) == (304, b"")
        assert same["ETag"] == shown["ETag"]
        assert same["X-Request-ID"]
        assert api("GET", path, If_None_Match='"x"').status_code == 200
        head = api("HEAD", path)
        assert (head.status_code, head["ETag"], head.content) == (200, shown["ETag"], b"")
    api("PUT", f"/tasks/{task['id']}/cancel")
    shown = api("GET", f"/tasks/{task['id']}", If_None_Match=shown["ETag"])
    assert shown.json()["status"] == "cancelled"
    assert "ETag" not in api("GET", "/tasks")


@pytest.mark.django_db(transaction=True)
def test_of_many_who_read_the_same_one_may_edit(api: Any) -> None:
    assert api("POST", "/workflows", WORKFLOW, **YAML).status_code == 201
    assert api("POST", "/schedules", SCHEDULE).status_code == 201
    tag = api("GET", "/schedules/nightly")["ETag"]
    start = Barrier(4)

    def edit(hour: int) -> int:
        try:
            start.wait()
            body = {"cron": f"0 {hour} * * *"}
            return int(api("PATCH", "/schedules/nightly", body, If_Match=tag).status_code)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        answers = sorted(pool.map(edit, range(4, 8)))
    assert answers == [200, 412, 412, 412]


@pytest.mark.django_db(transaction=True)
def test_name_and_id_are_one_thing(api: Any, wait_until: WaitUntil) -> None:
    assert api("POST", "/workflows", WORKFLOW, **YAML).status_code == 201
    made = api("POST", "/schedules", SCHEDULE).json()
    tag = api("GET", "/schedules/nightly")["ETag"]

    def edit(path: str, hour: int) -> int:
        try:
            body = {"cron": f"0 {hour} * * *"}
            return int(api("PATCH", path, body, If_Match=tag).status_code)
        finally:
            connections.close_all()

    waiting = "SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with ThreadPoolExecutor(2) as pool:
        with transaction.atomic():
            # As a third edit would, so that both come to their look together.
            etags.hold(Project.objects.get(slug="default"), "OneSchedule")
            paths = {"/schedules/nightly": 5, f"/schedules/{made['id']}": 6}
            answers = [pool.submit(edit, path, hour) for path, hour in paths.items()]
            wait_until(lambda: query(waiting, {})[0]["n"] == 2)
        assert sorted(answer.result() for answer in answers) == [200, 412]


def test_a_tag_is_never_younger_than_what_it_names(api: Any, world: None, monkeypatch: Any) -> None:
    show = schedule_api._shown

    def late(schedule: Any) -> Any:
        response = show(schedule)
        Schedule.objects.update(cron="59 1 * * *")
        return response

    # Somebody changes it after it was read, before it is sent.
    monkeypatch.setattr(schedule_api, "_shown", late)
    shown = api("GET", "/schedules/nightly")
    monkeypatch.undo()
    assert shown.json()["cron"] == "0 3 * * *"
    edit = {"cron": "0 7 * * *"}
    assert api("PATCH", "/schedules/nightly", edit, If_Match=shown["ETag"]).status_code == 412
    assert schedules.find(Project.objects.get(slug="default"), "nightly").cron == "59 1 * * *"


def test_a_condition_where_none_is_honoured_is_refused(api: Any) -> None:
    refused = api("PUT", "/secrets/TOKEN", {"value": "abcdefgh"}, If_None_Match="*")
    assert (refused.status_code, Secret.objects.count()) == (400, 0)
    assert "not honoured" in refused.json()["detail"]


def test_a_condition_on_a_method_that_is_not_there_is_a_405(api: Any) -> None:
    for method in ("PUT", "PATCH", "DELETE"):
        assert api(method, "/tasks", {}, If_Match="*").status_code == 405
