"""Runs below other runs, and runs that wait for a place, over HTTP."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from tests.api.conftest import Api
from tests.round_trips import round_trips

pytestmark = pytest.mark.django_db(transaction=True)

NESTED = """
name: nested
tasks:
  outer:
    tasks:
      inner:
        tasks:
          hold: {uses: signal}
"""
LINED = """
name: lined
inputs:
  properties: {place: {type: string}}
concurrency: {key: "deploy-${{ inputs.place }}", limit: 2}
tasks:
  hold: {uses: signal}
"""


def start(api: Api, text: str, **body: Any) -> str:
    """Upload a definition and return the id of a run of it."""
    uploaded = api("POST", "/workflows", text, Content_Type="application/yaml").json()
    answer = api("POST", f"/workflows/{uploaded['name']}/execute", body)
    assert answer.status_code == 201, answer.content
    return str(answer.json()["id"])


def listed(api: Api, query: str) -> list[str]:
    return [row["id"] for row in api("GET", f"/runs?{query}").json()["results"]]


# ------------------------------------------------------------ runs below runs
def test_runs_are_listed_by_the_run_above_them(api: Api) -> None:
    top, other = start(api, NESTED), start(api, NESTED)
    [outer] = listed(api, f"parent={top}")
    [inner] = listed(api, f"parent={outer}")
    assert listed(api, f"parent={inner}") == []
    assert listed(api, "parent=none") == [other, top]
    assert len(listed(api, "")) == 6
    # The key and the page.
    for query in ("", "parent=none", f"parent={top}"):
        with round_trips() as sent:
            listed(api, query)
        assert len(sent) == 2


def test_runs_of_another_project_are_below_nothing(api: Api) -> None:
    from opscore import keys
    from opscore.models import Project

    top = start(api, NESTED)
    foreign = Project.objects.create(slug="foreign")
    stranger = Api(keys.create(foreign, "x", ["admin"])[1], api.client)
    assert listed(stranger, f"parent={top}") == []


@pytest.mark.parametrize("wrong", ["nope", "None", "0"])
def test_a_parent_that_is_no_run_is_refused_in_words(api: Api, wrong: str) -> None:
    answer = api("GET", f"/runs?parent={wrong}")
    assert answer.status_code == 400
    assert answer.json()["errors"] == [
        {"message": f"must be `none` or the id of a run, not '{wrong}'", "path": "parent"}
    ]
    assert listed(api, f"parent={UUID(int=1)}") == []


# ------------------------------------------------------------ runs in line
def place(api: Api, run: str) -> Any:
    return api("GET", f"/runs/{run}").json()["waits_for_place"]


def test_a_run_in_line_says_for_what_and_behind_whom(api: Api) -> None:
    here = {"inputs": {"place": "here"}}
    first, second, third, fourth, urgent = (
        start(api, LINED, **here, priority=priority) for priority in (5, 5, 5, 5, 9)
    )
    there = start(api, LINED, inputs={"place": "there"})
    common = {"key": "deploy-here", "limit": 2}
    assert [place(api, run) for run in (first, second, there)] == [None] * 3
    held_by = [first, second]
    assert place(api, urgent) == {**common, "held_by": held_by, "ahead": 0}
    assert place(api, third) == {**common, "held_by": held_by, "ahead": 1}
    assert place(api, fourth) == {**common, "held_by": held_by, "ahead": 2}
    # Who comes first is who was said to: the engine decides it in a place of its own.
    api("POST", f"/runs/{first}/signals/hold")
    assert place(api, urgent) is None
    assert place(api, third) == {**common, "held_by": [second, urgent], "ahead": 0}
    api("POST", f"/runs/{second}/pause")
    assert place(api, third)["held_by"] == [second, urgent], "a paused run keeps its place"
    api("PUT", f"/runs/{third}/cancel")
    assert place(api, third) is None
    assert place(api, fourth)["ahead"] == 0


def test_no_more_than_ten_holders_are_named(api: Api) -> None:
    text = LINED.replace("limit: 2", "limit: 11")
    *holders, last = (start(api, text, inputs={"place": "x"}) for _ in range(12))
    assert place(api, last) == {
        "key": "deploy-x",
        "limit": 11,
        "held_by": holders[:10],
        "ahead": 0,
    }
