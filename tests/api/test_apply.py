"""`POST /apply`: a project becomes what files say, all of it or nothing."""

from __future__ import annotations

from typing import Any

import pytest

from agents.models import Breaker, Route
from opscore import keys
from opscore.models import Project
from tests.api.conftest import Api
from workflows.appliers import _SCHEDULE
from workflows.models import Schedule, Workflow, WorkflowVersion
from workflows.schedule_serializers import CreateScheduleSerializer

pytestmark = pytest.mark.django_db

WORKFLOW = "name: review\ntasks:\n  read: {capability: read}\n"
CHANGED = WORKFLOW + "  judge: {capability: judge, needs: [read]}\n"
SETTINGS = """\
schedules:
  nightly:
    workflow: review
    cron: "0 3 * * *"
routes:
  read: {strategy: round_robin}
resources:
  openai: {threshold: 0.2}
"""


def sent(**files: str) -> dict[str, Any]:
    named = {name.replace("_", "."): text for name, text in files.items()}
    return {"files": [{"path": name, "text": text} for name, text in named.items()]}


def told(answer: Any) -> dict[str, str]:
    assert answer.status_code == 200, answer.content
    return {f"{one['kind']} {one['name']}": one["change"] for one in answer.json()["changes"]}


def errors(answer: Any) -> list[tuple[str, str, int | None]]:
    assert answer.status_code == 400, answer.content
    return [
        (one.get("file", ""), one.get("path", ""), one.get("line"))
        for one in answer.json()["errors"]
    ]


def test_files_are_made_so_once(api: Api, project: Project) -> None:
    # The schedule's file comes first, and names a workflow of the second.
    files = sent(a_yaml=SETTINGS, b_yaml=WORKFLOW)
    kinds = ["workflow review", "schedules nightly", "routes read", "resources openai"]
    assert told(api("POST", "/apply", files)) == dict.fromkeys(kinds, "create")
    assert Schedule.objects.get(name="nightly").cron == "0 3 * * *"
    assert Route.objects.get(capability="read").strategy == "round_robin"
    assert Breaker.objects.get(name="openai").threshold == 0.2
    assert told(api("POST", "/apply", files)) == dict.fromkeys(kinds, "unchanged")
    assert WorkflowVersion.objects.count() == 1


def test_what_is_left_out_gets_its_default_but_a_pause_stays(api: Api, project: Project) -> None:
    api("POST", "/apply", sent(a_yaml=WORKFLOW, b_yaml=SETTINGS))
    api("PATCH", "/schedules/nightly", {"overlap": "skip", "priority": 9, "paused": True})
    answer = api("POST", "/apply", sent(b_yaml=SETTINGS))
    assert told(answer)["schedules nightly"] == "change"
    [change] = [one for one in answer.json()["changes"] if one["kind"] == "schedules"]
    assert {"-overlap: skip", "+overlap: allow"} <= set(change["diff"].splitlines())
    nightly = Schedule.objects.get(name="nightly")
    assert (nightly.overlap, nightly.priority, nightly.paused) == ("allow", None, True)
    said = SETTINGS.replace("workflow: review", "workflow: review\n    paused: false")
    assert told(api("POST", "/apply", sent(b_yaml=said)))["schedules nightly"] == "change"
    assert not Schedule.objects.get(name="nightly").paused


def test_every_field_of_a_schedule_has_its_default_here() -> None:
    known = set(CreateScheduleSerializer().fields) - {"name", "workflow", "paused"}
    assert set(_SCHEDULE) == known
    fresh = Schedule()
    assert {name: getattr(fresh, name) for name in known} == _SCHEDULE


def test_a_dry_run_tells_and_keeps_nothing(api: Api, project: Project) -> None:
    api("POST", "/apply", sent(a_yaml=WORKFLOW))
    dry = {**sent(a_yaml=CHANGED, b_yaml=SETTINGS), "dry_run": True}
    for headers in ({}, {"Idempotency_Key": "once"}):
        answer = api("POST", "/apply", dry, **headers)
        assert answer.json()["dry_run"] is True
        changes = told(answer)
        assert (changes["workflow review"], changes["schedules nightly"]) == ("change", "create")
        assert "+  judge:" in answer.json()["changes"][0]["diff"]
    assert WorkflowVersion.objects.count() == 1
    assert not Schedule.objects.exists()
    assert not Route.objects.exists()


def test_one_wrong_file_keeps_all_from_being_written(api: Api, project: Project) -> None:
    wrong = SETTINGS.replace("0 3 * * *", "0 3 * *") + "webhoks: {}\n"
    broken = "name: other\ntasks:\n  a: {capabilty: read}\n"
    answer = api(
        "POST", "/apply", sent(a_yaml=WORKFLOW, b_yaml=wrong, c_yaml=broken, d_yaml="x: 1\n")
    )
    found = errors(answer)
    assert ("b.yaml", "webhoks", 9) in found
    assert ("c.yaml", "tasks.a.capabilty", 3) in found
    assert ("d.yaml", "", 1) in found
    assert not Workflow.objects.exists()
    # Of what can be read: whether it has a meaning.
    answer = api("POST", "/apply", sent(a_yaml=WORKFLOW, b_yaml=wrong.replace("webhoks: {}\n", "")))
    assert errors(answer) == [("b.yaml", "schedules.nightly.cron", 4)]
    assert not Workflow.objects.exists()


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("schedules: []\n", "schedules", 1),
        ("schedules:\n  nightly: 3\n", "schedules.nightly", 2),
        ("schedules:\n  nightly: {workflow: x, crn: 1}\n", "schedules.nightly.crn", 2),
        ("routes:\n  read:\n    strategy: nearest\n", "routes.read.strategy", 3),
        ("resources:\n  openai:\n    threshold: 7\n", "resources.openai.threshold", 3),
        ("routes:\n  a: {strategy: fastest}\n  a: {strategy: sticky}\n", "routes.a", 3),
        ("schedules: {\n", "", 2),
        ("- 1\n", "", 1),
        ("", "", 1),
    ],
)
def test_mistakes_have_their_place(
    api: Api, project: Project, text: str, path: str, line: int
) -> None:
    assert ("a.yaml", path, line) in errors(api("POST", "/apply", sent(a_yaml=text)))


def test_a_name_stands_in_one_file_only(api: Api, project: Project) -> None:
    answer = api("POST", "/apply", sent(a_yaml=WORKFLOW, b_yaml=CHANGED))
    assert errors(answer) == [("b.yaml", "name", 1)]
    assert "stands in a.yaml already" in answer.json()["errors"][0]["message"]


def test_going_back_makes_the_old_content_the_latest(api: Api, project: Project) -> None:
    api("POST", "/apply", sent(a_yaml=WORKFLOW))
    api("POST", "/apply", sent(a_yaml=CHANGED))
    answer = api("POST", "/apply", sent(a_yaml=WORKFLOW))
    assert told(answer) == {"workflow review": "change"}
    assert answer.json()["changes"][0]["version"] == "3"
    assert list(api("GET", "/workflows/review").json()["definition"]["tasks"]) == ["read"]
    # An upload as such finds the version that has this content.
    assert (
        api(
            "POST", "/workflows", {"name": "review", "tasks": {"read": {"capability": "read"}}}
        ).json()["version"]
        == "3"
    )


def test_a_version_word_cannot_be_given_again(api: Api, project: Project) -> None:
    named = WORKFLOW + "version: one\n"
    api("POST", "/apply", sent(a_yaml=named))
    api("POST", "/apply", sent(a_yaml=CHANGED))
    answer = api("POST", "/apply", sent(a_yaml=named))
    assert "is older than the latest one" in answer.json()["errors"][0]["message"]
    answer = api("POST", "/apply", sent(a_yaml=CHANGED + "version: one\n"))
    assert "exists with other content" in answer.json()["errors"][0]["message"]


def test_who_may_not_change_routes_may_not_apply_them(api: Api, project: Project) -> None:
    _, api.key = keys.create(project, "ci", ["write"])
    assert told(api("POST", "/apply", sent(a_yaml=WORKFLOW)))
    answer = api("POST", "/apply", sent(b_yaml=SETTINGS))
    assert answer.status_code == 403
    assert "resources and routes" in answer.json()["detail"]
    _, api.key = keys.create(project, "seer", ["read"])
    assert api("POST", "/apply", sent(a_yaml=WORKFLOW)).status_code == 403


def test_json_files_are_read_as_json(api: Api, project: Project) -> None:
    text = '{"name": "review",\n "tasks": {"a": {"capabilty": "x"}}}'
    assert errors(api("POST", "/apply", sent(a_json=text)))[0] == ("a.json", "tasks.a.capabilty", 2)
