"""Which agent rows a host's file asks for."""

from __future__ import annotations

import pytest

from agents import registry
from agents.models import Agent
from agents.specs import Spec
from agents.supervisor import records
from opscore.errors import ConflictError
from opscore.models import Project

pytestmark = pytest.mark.django_db


def spec(name: str = "lint", replicas: int = 1) -> dict[str, Spec]:
    return {name: Spec(name, "worker", (name,), ("eu",), replicas=replicas, handlers="a.b")}


def rows(host: str) -> dict[str, str]:
    agents = Agent.objects.filter(host=host).order_by("name")
    return {agent.name: agent.desired for agent in agents}


def test_file_and_platform_get_their_agents(project: Project) -> None:
    for _ in range(2):
        records.enlist(project, "one", spec(replicas=2))
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
    records.enlist(project, "one", spec())
    records.enlist(project, "two", spec())
    assert rows("two") == {"lint-1@two": "running", "platform-1@two": "running"}
    records.enlist(project, "two", spec())
    assert len(rows("two")) == 2


def test_smaller_file_retires_and_larger_file_takes_up_again(project: Project) -> None:
    records.enlist(project, "one", spec(replicas=3))
    records.enlist(project, "one", spec(replicas=1))
    stopped = {name for name, desired in rows("one").items() if desired == "stopped"}
    assert stopped == {"lint-2", "lint-3"}
    records.enlist(project, "one", spec(replicas=2))
    assert rows("one")["lint-2"] == "running"
    records.enlist(project, "one", {})
    assert rows("one")["lint-1"] == "stopped"
    assert rows("one")["platform-1"] == "running"


def test_stop_by_an_operator_outlives_a_restart_of_the_supervisor(project: Project) -> None:
    records.enlist(project, "one", spec())
    registry.retire(Agent.objects.get(name="lint-1"), actor="operator")
    records.enlist(project, "one", spec())
    assert rows("one")["lint-1"] == "stopped"


def test_agents_of_the_api_are_left_alone(project: Project) -> None:
    Agent.objects.create(project=project, name="mine", kind="worker", spec="gone", host="one")
    records.enlist(project, "one", spec())
    assert rows("one")["mine"] == "running"


def test_names_that_are_all_taken_are_said(project: Project) -> None:
    for name in ("lint-1", "lint-1@one"):
        Agent.objects.create(project=project, name=name, kind="remote")
    with pytest.raises(ConflictError, match="rename the spec lint"):
        records.enlist(project, "one", spec())


def test_wanted_are_those_that_run_or_should_run(project: Project) -> None:
    records.enlist(project, "one", spec())
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


def test_name_that_would_be_too_long_with_its_host_is_said(project: Project) -> None:
    host = "h" * 100
    Agent.objects.create(project=project, name="lint-1", kind="remote")
    with pytest.raises(ConflictError, match="rename the spec lint"):
        records.enlist(project, host, spec())
