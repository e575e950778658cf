from __future__ import annotations

from typing import Any

import pytest
from django.db.models.functions import Now

from agents import pools, registry, sessions
from agents.models import Agent, Host
from opscore.database import query
from opscore.errors import ConflictError, InvalidError, NotFoundError
from opscore.models import Event, Project

pytestmark = pytest.mark.django_db

OFFER = {"kind": "worker", "capabilities": ["lint", "test"], "labels": ["eu"]}


def host(project: Project, name: str, age_s: float = 0, **specs: Any) -> None:
    Host.objects.create(project=project, name=name, specs=specs, pid=1, seen_at=Now())
    query(
        "UPDATE agents_host SET seen_at = now() - make_interval(secs => %(age)s) WHERE name = %(n)s",
        {"age": age_s, "n": name},
    )


def remote(project: Project, name: str = "r", **fields: Any) -> Agent:
    return registry.register(project, name=name, kind="remote", **fields)[0]


def test_agent_is_registered_once_and_renewed_after_that(project: Project) -> None:
    first, created = registry.register(
        project, name="r", kind="remote", capabilities=["a"], actor="key me"
    )
    again, created_again = registry.register(
        project, name="r", kind="remote", capabilities=["b"], labels=["gpu"]
    )
    assert (created, created_again, again.pk) == (True, False, first.pk)
    assert (again.capabilities, again.labels) == (["b"], ["gpu"])
    event = Event.objects.filter(agent_id=first.pk).earliest("id")
    assert (event.kind, event.actor) == ("agent.registered", "key me")


def test_name_of_another_kind_is_refused(project: Project) -> None:
    remote(project)
    with pytest.raises(ConflictError, match="belongs to another agent already"):
        registry.register(project, name="r", kind="http")


def test_bad_words_are_told_all_at_once(project: Project) -> None:
    with pytest.raises(InvalidError) as caught:
        registry.register(
            project, name="no good", kind="robot", capabilities=["ok", " "], labels=["x" * 81]
        )
    paths = [problem.path for problem in caught.value.problems]
    assert paths == ["name", "kind", "capabilities[1]", "labels[0]"]


def test_supervised_kind_is_chosen_by_spec_and_goes_to_the_emptier_host(project: Project) -> None:
    host(project, "one", linter=OFFER)
    host(project, "two", linter=OFFER)
    first, _ = registry.register(project, name="a", kind="worker", spec="linter")
    second, _ = registry.register(
        project, name="b", kind="worker", spec="linter", capabilities=["lint"], labels=["de"]
    )
    assert (first.capabilities, first.labels) == (["lint", "test"], ["eu"])
    assert (second.capabilities, second.labels) == (["lint"], ["de"])
    assert {first.host, second.host} == {"one", "two"}


@pytest.mark.parametrize("kind", ["worker", "command"])
def test_spec_that_no_live_host_offers_is_refused(project: Project, kind: str) -> None:
    host(project, "dead", age_s=3600, linter=OFFER)
    with pytest.raises(InvalidError) as caught:
        registry.register(project, name="a", kind=kind, spec="linter")
    assert "no live host offers any" in str(caught.value.problems[0])
    host(project, "alive", other=OFFER)
    with pytest.raises(InvalidError) as caught:
        registry.register(project, name="a", kind="worker", spec="linter")
    assert "offered now: other" in str(caught.value.problems[0])


def test_capability_that_the_spec_lacks_is_refused(project: Project) -> None:
    host(project, "one", linter=OFFER)
    with pytest.raises(InvalidError) as caught:
        registry.register(project, name="a", kind="worker", spec="linter", capabilities=["fly"])
    assert caught.value.problems[0].path == "capabilities"


def test_agent_is_found_by_name_or_id_and_near_misses_are_named(project: Project) -> None:
    agent = remote(project, "reviewer-1")
    assert registry.find(project, "reviewer-1") == agent
    assert registry.find(project, str(agent.pk)) == registry.find(project, agent.pk) == agent
    with pytest.raises(NotFoundError, match="Did you mean reviewer-1"):
        registry.find(project, "reviewr-1")
    with pytest.raises(NotFoundError):
        registry.find(Project.objects.create(slug="other"), agent.pk)


def test_retired_agent_ends_at_once_where_no_supervisor_lives(project: Project) -> None:
    agent = remote(project)
    session = sessions.start(agent)
    sessions.ready(session.pk)
    registry.retire(agent, actor="me")
    agent.refresh_from_db()
    assert (agent.status, agent.desired) == ("terminated", "stopped")
    assert sessions.live(session.pk) is None


def test_retired_agent_of_a_live_host_is_left_to_its_supervisor(project: Project) -> None:
    host(project, "one", linter=OFFER)
    agent, _ = registry.register(project, name="a", kind="worker", spec="linter")
    registry.retire(agent)
    agent.refresh_from_db()
    assert (agent.status, agent.desired) == ("initializing", "stopped")


def test_restart_is_an_order_to_the_supervisor(project: Project) -> None:
    host(project, "one", linter=OFFER)
    agent, _ = registry.register(project, name="a", kind="worker", spec="linter")
    registry.retire(agent)
    registry.restart(agent)
    agent.refresh_from_db()
    assert (agent.desired, agent.generation) == ("running", 2)


def test_agent_that_is_run_elsewhere_cannot_be_restarted(project: Project) -> None:
    with pytest.raises(ConflictError, match="restart it where it runs"):
        registry.restart(remote(project))
    by_hand, _ = registry.enrol(project, "celery@here", ["lint"])
    with pytest.raises(ConflictError):
        registry.restart(by_hand)


def test_agent_of_a_dead_host_moves_to_a_live_one_when_it_is_asked_for_again(
    project: Project,
) -> None:
    host(project, "one", linter=OFFER)
    agent, _ = registry.register(project, name="a", kind="worker", spec="linter")
    host(project, "two", linter=OFFER)
    registry.register(project, name="a", kind="worker", spec="linter")
    agent.refresh_from_db()
    assert agent.host == "one"
    Host.objects.filter(name="one").update(pid=None)
    registry.register(project, name="a", kind="worker", spec="linter")
    agent.refresh_from_db()
    assert agent.host == "two"


def test_agents_by_name_count_against_what_the_hosts_file_allows(project: Project) -> None:
    host(project, "one", linter={**OFFER, "replicas": 1, "max_replicas": 3})
    row = Host.objects.get(name="one")

    def start(name: str) -> Agent:
        return registry.register(project, name=name, kind="worker", spec="linter")[0]

    first = start("a")
    start("b")
    with pytest.raises(InvalidError) as caught:
        start("c")
    [problem] = caught.value.problems
    assert (problem.path, Agent.objects.filter(name="c").exists()) == ("spec", False)
    assert problem.message == (
        "the agents file of one allows at most 3 of linter (max_replicas): "
        "3 registered by name, this one among them, and 1 in its pool"
    )
    assert start("a") == first
    with pytest.raises(InvalidError, match="so large"):
        pools.scale(row, "linter", 2)
    # One that was stopped has lost its place.
    registry.retire(first)
    pools.scale(row, "linter", 2)
    with pytest.raises(InvalidError):
        start("a")
    assert Agent.objects.get(name="a").desired == "stopped"
