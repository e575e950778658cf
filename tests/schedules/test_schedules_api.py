"""Schedules over REST and in the admin."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from opscore import keys
from opscore.database import database_now
from opscore.models import Project
from tasks.models import Run
from tests.schedules.conftest import make_due
from workflows.firing import tick
from workflows.models import Schedule, Slot

if TYPE_CHECKING:
    from tests.api.conftest import Api

pytestmark = pytest.mark.django_db
BODY = {"name": "nightly", "workflow": "report", "cron": "0 3 * * *"}


def test_create_answers_with_the_next_five_times(api: Api, workflow: str) -> None:
    made = api("POST", "/api/v1/schedules", {**BODY, "timezone": "Europe/Berlin"})
    assert made.status_code == 201
    body = made.json()
    assert made["Location"] == f"/api/v1/schedules/{body['id']}"
    assert len(body["next_times"]) == 5
    assert body["next_at"] == body["next_times"][0]
    assert body["next_times"] == sorted(set(body["next_times"]))
    assert (body["catch_up"], body["overlap"], body["every_s"]) == ("latest", "allow", None)
    assert api("GET", made["Location"]).json() == body
    assert api("GET", "/schedules/nightly").json()["id"] == body["id"]
    [listed] = api("GET", "/schedules?workflow=report&paused=false").json()["results"]
    assert listed["name"] == "nightly"


def test_create_with_a_key_is_done_once(api: Api, workflow: str) -> None:
    first, again = (api("POST", "/schedules", BODY, Idempotency_Key="k") for _ in range(2))
    assert (first.json(), again["Idempotency-Replayed"]) == (again.json(), "true")
    assert api("POST", "/schedules", BODY).status_code == 409


@pytest.mark.parametrize(
    ("change", "path", "told"),
    [
        ({"cron": "0 25 * * *"}, "cron", "0-23"),
        ({"cron": None}, "cron", "either"),
        ({"cron": "0 0 30 2 *"}, "cron", "day-of-month"),
        ({"cron": "* * */20 * 1L"}, "cron", "never"),
        ({"every_s": 60}, "cron", "not both"),
        ({"timezone": "Berlin"}, "timezone", "Europe/Berlin"),
        ({"workflow": "repot"}, "workflow", "report"),
        ({"version": "9"}, "version", "newest are: 1"),
        ({"inputs": {"dya": "x"}}, "inputs.dya", "day"),
        ({"inputs": {"day": 1}}, "inputs.day", "string"),
        ({"slot_input": "slot"}, "inputs.slot", "no such input"),
        ({"name": "a/b"}, "name", "letters"),
        ({"name": "8c9ad0a4-2b2c-7b60-9e5f-0f3f5b7b1a11"}, "name", "id"),
        ({"overlap": "never"}, "overlap", "never"),
        ({"cathc_up": "all"}, "cathc_up", "catch_up"),
        ({"catch_up_window_s": -1}, "catch_up_window_s", "0"),
        ({"priority": 10}, "priority", "9"),
        ({"fairness_key": "x" * 101}, "fairness_key", "100"),
    ],
)
def test_schedule_that_makes_no_sense_is_refused_with_path_and_help(
    api: Api, workflow: str, change: dict[str, Any], path: str, told: str
) -> None:
    answer = api("POST", "/schedules", {**BODY, **change})
    assert answer.status_code == 400
    [problem] = answer.json()["errors"]
    assert problem["path"] == path
    assert told in problem["message"]
    assert not Schedule.objects.exists()


def test_every_problem_is_told_at_once(api: Api) -> None:
    wrong = {"name": "-", "workflow": "none", "cron": "x", "timezone": "Mars"}
    problems = api("POST", "/schedules", wrong).json()["errors"]
    assert {problem["path"] for problem in problems} == {"name", "workflow", "cron", "timezone"}


def test_change_of_the_timetable_counts_from_now_on(
    api: Api, schedule: Callable[..., Schedule]
) -> None:
    made = schedule("nightly", cron="0 3 * * *", catch_up="all")
    make_due(made, since_s=3 * 86400)
    kept = api("PATCH", "/schedules/nightly", {"overlap": "queue"}).json()
    assert kept["next_at"] < kept["next_times"][0]
    changed = api("PATCH", "/schedules/nightly", {"every_s": 600}).json()
    assert (changed["cron"], changed["every_s"]) == (None, 600)
    assert changed["next_at"] == changed["next_times"][0]
    back = api("PATCH", "/schedules/nightly", {"cron": "@daily", "name": "daily"}).json()
    assert (back["cron"], back["every_s"]) == ("@daily", None)
    assert api("GET", "/schedules/nightly").status_code == 404
    assert api("PATCH", "/schedules/daily", {"cron": "nonsense"}).status_code == 400
    assert api("PATCH", "/schedules/daily", {"cron": None}).status_code == 400
    schedule("other")
    assert api("PATCH", "/schedules/daily", {"name": "other"}).status_code == 409
    assert Schedule.objects.get(pk=made.pk).name == "daily"


def test_pause_and_resume(api: Api, schedule: Callable[..., Schedule]) -> None:
    schedule("often", every_s=60)
    paused = api("POST", "/schedules/often/pause").json()
    assert (paused["paused"], paused["next_at"]) == (True, None)
    assert api("POST", "/schedules/often/resume").json()["next_at"]
    assert api("PATCH", "/schedules/often", {"paused": True}).json()["next_at"] is None
    assert api("PATCH", "/schedules/often", {"paused": False}).json()["next_at"]


def test_trigger_starts_a_run_now_and_beside_the_timetable(
    api: Api, schedule: Callable[..., Schedule]
) -> None:
    made = schedule("often", overlap="skip")
    api("POST", "/schedules/often/pause")
    fired = api("POST", "/schedules/often/trigger")
    assert fired.status_code == 201
    slot = fired.json()
    assert (slot["outcome"], slot["cause"]) == ("started", "manual")
    assert str(Run.objects.get().pk) == slot["run_id"]
    refused = api("POST", "/schedules/often/trigger").json()
    assert refused["outcome"] == "skipped"
    assert slot["run_id"] in refused["reason"]
    forced = api("POST", "/schedules/often/trigger", {"overlap": "allow"}).json()
    assert forced["outcome"] == "started"
    assert Schedule.objects.get(pk=made.pk).last_at is None
    listed = api("GET", "/schedules/often/slots?cause=manual&outcome=skipped").json()["results"]
    assert [row["id"] for row in listed] == [refused["id"]]


def test_trigger_that_cannot_start_tells_why_and_leaves_nothing(
    api: Api, schedule: Callable[..., Schedule]
) -> None:
    schedule("often")
    Schedule.objects.update(workflow="gone")
    answer = api("POST", "/schedules/often/trigger")
    assert answer.status_code == 404
    assert "gone" in answer.json()["detail"]
    assert not Slot.objects.exists()


def test_backfill_tells_how_many_and_is_harmless_when_repeated(
    api: Api, schedule: Callable[..., Schedule]
) -> None:
    schedule("often")
    now = database_now()
    body = {"from": (now - timedelta(hours=5)).isoformat(), "to": now.isoformat()}
    made = api("POST", "/schedules/often/backfill", body)
    assert (made.status_code, made.json()) == (201, {"slots": 5, "created": 5})
    assert api("POST", "/schedules/often/backfill", body).json()["created"] == 0
    tick()
    slots = api("GET", "/schedules/often/slots?limit=3").json()
    assert [row["outcome"] for row in slots["results"]] == ["started"] * 3
    assert slots["next"]
    assert Run.objects.count() == 5


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"from": "2020-01-01T00:00:00Z", "to": "2999-01-01T00:00:00Z"}, "to"),
        ({"from": "2020-01-02T00:00:00Z", "to": "2020-01-01T00:00:00Z"}, "to"),
        ({"from": "0001-01-01T00:00:00+14:00", "to": "2020-01-01T00:00:00Z"}, "from"),
        ({"from": "2010-01-01T00:00:00Z", "to": "2020-01-01T00:00:00Z"}, "to"),
        ({"from": "yesterday", "to": "2020-01-01T00:00:00Z"}, "from"),
        ({"to": "2020-01-01T00:00:00Z"}, "from"),
    ],
)
def test_range_that_makes_no_sense_is_refused(
    api: Api, schedule: Callable[..., Schedule], body: dict[str, str], path: str
) -> None:
    schedule("often")
    answer = api("POST", "/schedules/often/backfill", body)
    assert answer.status_code == 400
    assert [problem["path"] for problem in answer.json()["errors"]] == [path]
    assert not Slot.objects.exists()


def test_deleted_schedule_leaves_its_runs(api: Api, schedule: Callable[..., Schedule]) -> None:
    schedule("often")
    api("POST", "/schedules/often/trigger")
    assert api("DELETE", "/schedules/often").status_code == 204
    assert (Schedule.objects.count(), Slot.objects.count(), Run.objects.count()) == (0, 0, 1)


def test_unknown_schedule_is_told_with_close_names(
    api: Api, schedule: Callable[..., Schedule]
) -> None:
    schedule("nightly")
    for method, path in (
        ("GET", "/schedules/nigthly"),
        ("PATCH", "/schedules/nigthly"),
        ("DELETE", "/schedules/nigthly"),
        ("POST", "/schedules/nigthly/pause"),
        ("POST", "/schedules/nigthly/trigger"),
        ("GET", "/schedules/nigthly/slots"),
    ):
        answer = api(method, path)
        assert answer.status_code == 404
        assert "nightly" in answer.json()["detail"]


def test_schedules_of_another_project_are_not_there(
    api: Api, schedule: Callable[..., Schedule], client: Client
) -> None:
    made = schedule("ours")
    theirs = Project.objects.create(slug="theirs")
    key = keys.create(theirs, "k", ["admin"])[1]
    headers = {"Authorization": f"Bearer {key}"}
    assert client.get("/schedules", headers=headers).json()["results"] == []
    for path in (f"/schedules/{made.pk}", "/schedules/ours", "/schedules/ours/slots"):
        assert client.get(path, headers=headers).status_code == 404


def test_reader_may_look_but_not_fire(
    make_api: Callable[..., Api], schedule: Callable[..., Schedule]
) -> None:
    schedule("often")
    reader = make_api("read")
    assert reader("GET", "/schedules/often").status_code == 200
    assert reader("POST", "/schedules/often/trigger").status_code == 403


def test_admin_lists_in_words_and_pauses(client: Client, schedule: Callable[..., Schedule]) -> None:
    User.objects.create_superuser("alice", "alice@example.org", "wonderland")
    client.login(username="alice", password="wonderland")
    made = schedule("weekly", cron="0 9 * * 1", timezone="Europe/Berlin")
    make_due(made, since_s=8 * 86400)
    tick()
    address = reverse("admin:workflows_schedule_changelist")
    assert "At 09:00 on Monday (Europe/Berlin)" in client.get(address).content.decode()
    assert client.get(reverse("admin:workflows_slot_changelist"), {"q": "we"}).status_code == 200
    for row in (made, *Slot.objects.all()):
        page = reverse(f"admin:workflows_{row._meta.model_name}_change", args=[row.pk])
        assert client.get(page).status_code == 200
    for action, paused in (("pause", True), ("resume", False)):
        client.post(address, {"action": action, "_selected_action": [made.pk]})
        assert Schedule.objects.get().paused is paused
