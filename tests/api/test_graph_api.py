"""Drawing and validating definitions over the API."""

from __future__ import annotations

from typing import Any

import pytest

from agents.models import Agent
from opscore.models import Project

pytestmark = pytest.mark.django_db(transaction=True)
TWO = "name: two\ntasks:\n  a: {capability: echo}\n  b: {needs: a, capability: other, requires: gpu}\n"


def drawn(api: Any, query: str = "") -> Any:
    return api("POST", f"/workflows/graph{query}", TWO, Content_Type="application/yaml")


def test_a_definition_is_drawn_without_an_upload(api: Any) -> None:
    answer = drawn(api)
    assert answer.status_code == 200
    assert answer.json()["format"] == "text"
    assert answer.json()["graph"].splitlines()[1:] == [
        "    1  a  [echo]",
        "    2  b  [other +gpu]  <- a",
    ]
    body = drawn(api, "?format=mermaid").json()
    assert body["format"] == "mermaid"
    assert body["graph"].startswith("flowchart TD\n")
    assert "  t0 --> t1\n" in body["graph"]
    assert api("GET", "/workflows/two").status_code == 404


def test_a_stored_workflow_is_drawn(api: Any) -> None:
    assert api("POST", "/workflows", TWO, Content_Type="application/yaml").status_code == 201
    body = api("GET", "/workflows/two/graph?format=mermaid").json()
    assert body == drawn(api, "?format=mermaid").json()
    assert api("GET", "/workflows/nobody/graph").status_code == 404


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_format_is_refused_in_words(api: Any, method: str) -> None:
    api("POST", "/workflows", TWO, Content_Type="application/yaml")
    answer = (
        drawn(api, "?format=mermade")
        if method == "POST"
        else api("GET", "/workflows/two/graph?format=mermade")
    )
    assert answer.status_code == 400
    (problem,) = answer.json()["errors"]
    assert problem["path"] == "format"
    assert "did you mean 'mermaid'?" in problem["message"]


def test_a_wrong_definition_is_not_drawn(api: Any) -> None:
    answer = api("POST", "/workflows/graph", "name: x\n", Content_Type="application/yaml")
    assert answer.status_code == 400
    assert "at least one task" in answer.json()["errors"][0]["message"]


def test_validate_warns_of_what_nobody_offers(api: Any, project: Project) -> None:
    Agent.objects.create(project=project, name="one", kind="remote", capabilities=["echo"])
    Agent.objects.create(
        project=project, name="two", kind="remote", capabilities=["other"], labels=["cpu"]
    )
    text = f"{TWO}  c: {{uses: 'workflow:nobody'}}\nfinally:\n  d: {{capability: echo}}\n"
    body = checked(api, text)
    assert (body["valid"], body["tasks"]) == (True, 4)
    assert body["warnings"] == [
        {
            "message": "no agent offers `other` with gpu at present",
            "path": "tasks.b.capability",
            "line": 4,
        },
        {"message": "there is no workflow `nobody` yet", "path": "tasks.c.uses", "line": 5},
    ]
    Agent.objects.filter(name="two").update(labels=["gpu"])
    assert checked(api, TWO)["warnings"] == []


def test_a_warning_stands_where_its_author_wrote_the_word(api: Any) -> None:
    text = """\
name: placed
templates:
  nightly:
    capability: sleep
tasks:
  block:
    tasks:
      sub: {uses: "workflow:nobody@2"}
      again: {uses: "workflow:nobody"}
  late: {extends: nightly}
  self: {uses: "workflow:placed"}
finally:
  last: {uses: "workflow:nothing"}
"""
    warnings = checked(api, text)["warnings"]
    assert [(each["line"], each["path"]) for each in warnings] == [
        (4, "tasks.late.capability"),
        (8, "tasks.block.tasks.sub.uses"),
        (13, "finally.last.uses"),
    ]


def checked(api: Any, text: str) -> dict[str, Any]:
    body: dict[str, Any] = api(
        "POST", "/workflows/validate", text, Content_Type="application/yaml"
    ).json()
    return body
