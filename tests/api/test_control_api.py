"""Pause, resume, run again, signals and approvals over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.models import Run
from tasks.serializers import run_shown
from tests.api.conftest import Api

pytestmark = pytest.mark.django_db(transaction=True)

FLOW = """
name: flow
tasks:
  paid: {uses: signal, with: {name: payment}}
  ok: {needs: paid, uses: approval, with: {message: "Ship it?", role: operator}}
"""


@pytest.fixture
def run(api: Api) -> dict[str, Any]:
    assert api("POST", "/workflows", FLOW, Content_Type="application/yaml").status_code == 201
    started: dict[str, Any] = api("POST", "/workflows/flow/execute", {"inputs": {}}).json()
    return started


def task(api: Api, run: dict[str, Any], key: str) -> dict[str, Any]:
    tasks = api("GET", f"/runs/{run['id']}").json()["tasks"]
    return next(one for one in tasks if one["key"] == key)


def test_signal_and_approval_end_a_run(api: Api, make_api: Any, run: dict[str, Any]) -> None:
    sent = api("POST", f"/runs/{run['id']}/signals/payment", {"amount": 3})
    assert (sent.status_code, sent.json()["payload"]) == (201, {"amount": 3})
    assert sent.json()["taken_by"] == task(api, run, "paid")["id"]
    assert api("GET", f"/runs/{run['id']}/signals").json()["results"][0]["name"] == "payment"
    [waiting] = api("GET", "/approvals").json()["results"]
    assert (waiting["message"], waiting["role"], waiting["key"]) == ("Ship it?", "operator", "ok")
    where = f"/tasks/{waiting['task_id']}/approval"
    reader = make_api("read", "agent")
    assert reader("POST", where, {"decision": "approve"}).status_code == 403
    operator = make_api("write")
    decided = operator("POST", where, {"decision": "approve", "comment": "go"})
    assert decided.json()["result"] == {"approved": True, "by": "test", "comment": "go"}
    assert api("POST", where, {"decision": "reject"}).status_code == 409
    assert api("GET", f"/runs/{run['id']}").json()["status"] == "completed"
    assert api("POST", f"/runs/{run['id']}/signals/payment", 1).status_code == 409


def test_role_that_is_missing_is_forbidden(api: Api, make_api: Any, run: dict[str, Any]) -> None:
    text = FLOW.replace("role: operator", "role: lawyer").replace("name: flow", "name: law")
    api("POST", "/workflows", text, Content_Type="application/yaml")
    other = api("POST", "/workflows/law/execute", {"inputs": {}}).json()
    api("POST", f"/runs/{other['id']}/signals/payment")
    where = f"/tasks/{task(api, other, 'ok')['id']}/approval"
    refused = make_api("write", "read")("POST", where, {"decision": "approve"})
    assert (refused.status_code, "lawyer" in refused.json()["detail"]) == (403, True)
    assert api("POST", where, {"decision": "approve"}).status_code == 200


NAMES = """
name: names
tasks:
  paid: {uses: signal, with: {name: payment}}
  page:
    for_each: [1, 2]
    uses: signal
    with: {name: "page-${{ item }}-read"}
  late: {needs: [paid], uses: signal}
"""


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("payment", ""),
        ("late", ""),
        ("page-1-read", ""),
        ("page-9-read", ""),
        ("paymnet", "No task of the run waits for a signal `paymnet`; did you mean `payment`?"),
        ("page-1", "No task of the run waits for a signal `page-1`."),
        ("paid", "No task of the run waits for a signal `paid`."),
        ("wibble", "No task of the run waits for a signal `wibble`."),
    ],
)
def test_a_signal_that_nobody_can_take_is_kept_and_warned_of(
    api: Api, name: str, warning: str
) -> None:
    assert api("POST", "/workflows", NAMES, Content_Type="application/yaml").status_code == 201
    run = api("POST", "/workflows/names/execute", {}).json()["id"]
    sent = api("POST", f"/runs/{run}/signals/{name}")
    assert (sent.status_code, sent.json()["warning"]) == (201, warning)
    [kept] = api("GET", f"/runs/{run}/signals").json()["results"]
    assert kept == {key: value for key, value in sent.json().items() if key != "warning"}


@pytest.mark.parametrize(
    ("template", "warns"), [("${{ inputs.word }}", False), ("$${{ x }}", True)]
)
def test_a_name_that_is_one_expression_may_be_any(api: Api, template: str, warns: bool) -> None:
    tasks = {"any": {"uses": "signal", "with": {"name": template}}}
    inputs = {"properties": {"word": {"type": "string"}}}
    definition = {"name": "any", "inputs": inputs, "tasks": tasks}
    assert api("POST", "/workflows", definition).status_code == 201
    run = api("POST", "/workflows/any/execute", {"inputs": {"word": "said"}}).json()["id"]
    assert bool(api("POST", f"/runs/{run}/signals/other").json()["warning"]) is warns


def test_a_signal_for_what_is_inside_a_block_is_told_where_it_belongs(api: Api) -> None:
    text = "name: b\ntasks:\n  block: {tasks: {paid: {uses: signal}}}\n"
    api("POST", "/workflows", text, Content_Type="application/yaml")
    run = api("POST", "/workflows/b/execute", {}).json()["id"]
    said = api("POST", f"/runs/{run}/signals/paid").json()["warning"]
    assert "a signal for one goes to its own id" in said
    [inside] = api("GET", f"/runs?parent={run}").json()["results"]
    assert api("POST", f"/runs/{inside['id']}/signals/paid").json()["warning"] == ""
    assert api("GET", f"/runs/{run}").json()["status"] == "completed"


def test_signal_to_one_task(api: Api, run: dict[str, Any]) -> None:
    where = f"/tasks/{task(api, run, 'paid')['id']}/signal"
    assert api("POST", where, [1, 2]).json()["result"] == [1, 2]
    assert api("POST", where, [1, 2]).status_code == 409


def test_pause_resume_cancel_and_rerun(api: Api, run: dict[str, Any]) -> None:
    where = f"/runs/{run['id']}"
    assert api("POST", f"{where}/pause").json()["status"] == "paused"
    assert api("POST", f"{where}/pause").status_code == 200, "repeating it is harmless"
    assert api("POST", f"{where}/resume").json()["status"] == "running"
    assert api("POST", f"{where}/rerun").status_code == 409
    assert api("PUT", f"{where}/cancel", {"force": True}).json()["status"] == "cancelled"
    again = api("POST", f"{where}/rerun", {"from": ["paid"]})
    assert (again.status_code, again.json()["rerun_of"]) == (201, run["id"])
    assert again.headers["Location"] == f"/runs/{again.json()['id']}"
    wrong = api("POST", f"{where}/rerun", {"from": ["piad"]})
    assert (wrong.status_code, wrong.json()["errors"][0]["path"]) == (400, "from")


def test_only_the_fields_that_are_asked_for(
    api: Api, run: dict[str, Any], django_assert_num_queries: Any
) -> None:
    where = f"/runs/{run['id']}"
    refused = api("POST", f"{where}/pause?fields=status,nonsense")
    assert (refused.status_code, refused.json()["errors"][0]["path"]) == (400, "fields")
    assert api("GET", f"{where}?fields=status").json() == {"status": "running"}, "nothing was done"
    assert api("POST", f"{where}/pause?fields=status").json() == {"status": "paused"}
    assert api("POST", f"{where}/resume?fields=status").json() == {"status": "running"}
    assert api("PUT", f"{where}/cancel?fields=status").json() == {"status": "cancelled"}
    again = api("POST", f"{where}/rerun?fields=rerun_of")
    assert again.json() == {"rerun_of": run["id"]}
    assert again["Location"].startswith("/runs/")
    # The tasks are not read for it.
    with django_assert_num_queries(0):
        assert run_shown(Run(pk=run["id"], phase="undo"), ["phase"])["phase"] == "undo"


def test_pause_of_a_workflow_and_of_everything(api: Api) -> None:
    assert api("POST", "/pauses", {"workflow": "flow", "reason": "audit"}).status_code == 201
    assert api("POST", "/pauses").json()["workflow"] == ""
    assert [one["reason"] for one in api("GET", "/pauses").json()["results"]] == ["", "audit"]
    assert api("POST", "/resume", {"workflow": "flow"}).status_code == 204
    assert api("POST", "/resume").status_code == 204
    assert api("GET", "/pauses").json()["results"] == []


def test_redrive_by_filter(api: Api, run: dict[str, Any]) -> None:
    api("POST", f"/runs/{run['id']}/signals/payment")
    approval = f"/tasks/{task(api, run, 'ok')['id']}/approval"
    api("POST", approval, {"decision": "reject"})
    assert api("POST", "/runs/redrive", {"error_type": "other"}).json() == {"runs": []}
    [started] = api("POST", "/runs/redrive", {"workflow": "flow", "error_type": "rejected"}).json()[
        "runs"
    ]
    assert started["rerun_of"] == run["id"]
    assert api("POST", "/runs/redrive", {}).json() == {"runs": []}, "each once"


def test_other_projects_are_not_found(api: Api, run: dict[str, Any]) -> None:
    from opscore import keys
    from opscore.models import Project

    foreign = Project.objects.create(slug="foreign")
    stranger = Api(keys.create(foreign, "x", ["admin"])[1], api.client)
    for path in ("pause", "resume", "rerun", "signals/payment"):
        assert stranger("POST", f"/runs/{run['id']}/{path}").status_code == 404
    for path in ("signal", "approval"):
        where = f"/tasks/{task(api, run, 'paid')['id']}/{path}"
        assert stranger("POST", where, {"decision": "approve"}).status_code == 404
    assert stranger("GET", "/approvals").json()["results"] == []


def test_executor_cannot_report_on_a_task_that_waits(api: Api, run: dict[str, Any]) -> None:
    waiting = task(api, run, "paid")
    for fence in range(3):
        body = {"fence": fence, "status": "completed", "result": 1}
        assert api("POST", f"/tasks/{waiting['id']}/report", body).status_code == 409
    assert task(api, run, "paid")["status"] == "waiting"
