"""Which agent rows a host's file asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agents import registry, workload
from agents.models import Agent
from agents.specs import Spec
from agents.supervisor import records, roster
from opscore.models import Project

pytestmark = pytest.mark.django_db


def spec(name: str = "lint", replicas: int = 1) -> dict[str, Spec]:
    return {name: Spec(name, "worker", (name,), ("eu",), replicas=replicas, handlers="a.b")}


def rows(host: str) -> dict[str, str]:
    agents = Agent.objects.filter(host=host).order_by("name")
    return {agent.name: agent.desired for agent in agents}


def test_file_and_platform_get_their_agents(project: Project) -> None:
    for _ in range(2):
        roster.enlist(project, "one", spec(replicas=2))
    assert rows("one") == {"lint-1": "running", "lint-2": "running", "platform-1": "running"}
    agent = Agent.objects.get(name="lint-2")
    assert (agent.kind, agent.spec, agent.capabilities, agent.labels, agent.replica) == (
        "worker",
        "lint",
        ["lint"],
        ["eu"],
        2,
    )


def test_second_host_gets_names_of_its_own(project: Project) -> None:
    roster.enlist(project, "one", spec())
    roster.enlist(project, "two", spec())
    assert rows("two") == {"lint-1@two": "running", "platform-1@two": "running"}
    roster.enlist(project, "two", spec())
    assert len(rows("two")) == 2


def test_smaller_file_retires_and_larger_file_takes_up_again(project: Project) -> None:
    roster.enlist(project, "one", spec(replicas=3))
    roster.enlist(project, "one", spec(replicas=1))
    stopped = {name for name, desired in rows("one").items() if desired == "stopped"}
    assert stopped == {"lint-2", "lint-3"}
    roster.enlist(project, "one", spec(replicas=2))
    assert rows("one")["lint-2"] == "running"
    roster.enlist(project, "one", {})
    assert rows("one")["lint-1"] == "stopped"
    assert rows("one")["platform-1"] == "running"


def test_stop_by_an_operator_outlives_a_restart_of_the_supervisor(project: Project) -> None:
    roster.enlist(project, "one", spec())
    registry.retire(Agent.objects.get(name="lint-1"), actor="operator")
    roster.enlist(project, "one", spec())
    assert rows("one")["lint-1"] == "stopped"


def test_agents_of_the_api_are_left_alone(project: Project) -> None:
    Agent.objects.create(project=project, name="mine", kind="worker", spec="gone", host="one")
    roster.enlist(project, "one", spec())
    assert rows("one")["mine"] == "running"


def test_number_whose_names_are_taken_is_left_out(project: Project) -> None:
    for name in ("lint-1", "lint-1@one"):
        Agent.objects.create(project=project, name=name, kind="remote")
    for _ in range(2):
        assert roster.enlist(project, "one", spec())
        assert set(rows("one")) == {"lint-2", "platform-1"}


def test_wanted_are_those_that_run_or_should_run(project: Project) -> None:
    roster.enlist(project, "one", spec())
    Agent.objects.create(
        project=project,
        name="old",
        kind="worker",
        host="one",
        desired="stopped",
        status="terminated",
    )
    Agent.objects.create(
        project=project, name="going", kind="worker", host="one", desired="stopped", status="active"
    )
    found = {agent.name: agent for agent in records.wanted("one").values()}
    assert set(found) == {"lint-1", "platform-1", "going"}
    assert found["platform-1"].is_platform
    assert not found["going"].running


def test_name_that_would_be_too_long_with_its_host_is_left_out(project: Project) -> None:
    Agent.objects.create(project=project, name="lint-1", kind="remote")
    assert roster.enlist(project, "h" * 100, spec())
    assert set(rows("h" * 100)) == {"lint-2", "platform-1"}


def test_idle_agents_leave_a_pool_first(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    roster.enlist(project, "one", spec(replicas=4))
    busy = {Agent.objects.get(name=name).pk: 1 for name in ("lint-2", "lint-4")}
    monkeypatch.setattr(workload._source, "running", lambda ids: busy)
    roster.enlist(project, "one", spec(replicas=3))
    assert rows("one")["lint-3"] == "stopped"
    roster.enlist(project, "one", spec(replicas=1))
    assert [name for name, desired in rows("one").items() if desired == "running"] == [
        "lint-2",
        "platform-1",
    ]
    # The one that still has a task does not come back before it has ended.
    roster.enlist(project, "one", spec(replicas=4))
    running = {name for name, desired in rows("one").items() if desired == "running"}
    assert running == {"lint-1", "lint-2", "lint-3", "lint-5", "platform-1"}


def test_change_of_a_size_writes_only_what_changes(
    project: Project, django_assert_max_num_queries: Any
) -> None:
    roster.enlist(project, "one", spec(replicas=100))
    before = Agent.objects.get(name="lint-1")
    with django_assert_max_num_queries(12):
        roster.enlist(project, "one", spec(replicas=50))
    with django_assert_max_num_queries(12):
        roster.enlist(project, "one", spec(replicas=100))
    assert list(rows("one").values()).count("running") == 101
    wider = {"lint": replace(spec()["lint"], labels=("eu", "gpu"), replicas=100)}
    roster.enlist(project, "one", wider)
    after = Agent.objects.get(pk=before.pk)
    assert (before.labels, after.labels) == (["eu"], ["eu", "gpu"])
