"""Capabilities and routes by API and command, and what tasks say about the agents that they would have."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from opscore import keys
from opscore.models import Project
from opscore_sdk import ApiError, Client, InvalidError, NotFoundError
from tests.live_server import Server
from tests.sdk.conftest import Command

pytestmark = pytest.mark.django_db(transaction=True)


def test_capabilities_show_who_has_them_and_what_there_is_to_do(client: Client) -> None:
    client.register_agent("ann", "remote", capabilities=["lint", "test"], concurrency=3)
    client.submit("lint")
    client.submit("dance")
    client.set_route("lint", "weighted", {"ann": 2})
    found = {one.pop("name"): one for one in client.capabilities()}
    usual = {"strategy": "least_loaded", "weights": {}, "live": 0, "running": 0}
    assert found["dance"] == {**usual, "agents": [], "queued": 1}
    assert found["test"] == {**usual, "agents": ["ann"], "queued": 0}
    assert found["lint"] == {
        **usual,
        "strategy": "weighted",
        "weights": {"ann": 2},
        "agents": ["ann"],
        "queued": 1,
    }
    assert client.agent("ann").concurrency == 3


def test_route_is_set_changed_shown_and_dropped(client: Client) -> None:
    with pytest.raises(NotFoundError):
        client.route("a/b")
    assert client.set_route("a/b", "fastest")["strategy"] == "fastest"
    assert client.set_route("a/b", "weighted", {"gpu": 5})["weights"] == {"gpu": 5}
    assert client.route("a/b")["strategy"] == "weighted"
    client.drop_route("a/b")
    with pytest.raises(NotFoundError, match="no route"):
        client.drop_route("a/b")
    assert {event.kind for event in client.events(kind="route.")} == {
        "route.changed",
        "route.dropped",
    }


def test_bad_routes_and_wishes_are_refused_with_their_places(client: Client) -> None:
    with pytest.raises(InvalidError) as refused:
        client.set_route("lint", "fastest", {"ann": 2})
    assert "weights belong to the strategy" in str(refused.value.errors[0])
    with pytest.raises(InvalidError):
        client.set_route("lint", "best")
    for wishes in ({"prefers": {"gpu": 101}}, {"prefers": ["gpu"]}, {"sticky": ""}):
        with pytest.raises(InvalidError) as refused:
            client.submit("lint", **wishes)
        assert refused.value.errors
    with pytest.raises(InvalidError) as refused:
        client.register_agent("w", "worker", spec="x", concurrency=2)
    assert "the spec says it" in str(refused.value.errors[0])


def test_submitted_wishes_are_kept_and_shown(client: Client) -> None:
    task = client.submit("lint", prefers={"gpu": 5}, sticky="a ${{ b")
    assert task.raw["flow"] == {"prefers": {"gpu": 5}, "sticky": "a $${{ b"}
    assert task.raw["for_agent"] is None


def test_only_admins_choose_routes(server: Server) -> None:
    _, secret = keys.create(Project.objects.get(slug="default"), "reader", ["read"])
    with Client(server.url, secret) as reader:
        assert reader.capabilities() == []
        with pytest.raises(ApiError) as refused:
            reader.set_route("lint", "fastest")
    assert refused.value.status == 403


def test_command_shows_and_changes_routes(client: Client, opscore: Command) -> None:
    client.register_agent("ann", "remote", capabilities=["lint"])
    done = opscore("route", "lint", "--strategy", "weighted", "--weight", "ann=3")
    assert (done.returncode, done.stdout.strip()) == (0, "lint: weighted (ann 3)")
    assert opscore("route", "lint").stdout.strip() == "lint: weighted (ann 3)"
    shown = opscore("capabilities").stdout
    assert "weighted" in shown
    assert "ann" in shown
    assert opscore("route", "lint", "--weight", "ann", "--strategy", "weighted").returncode != 0
    dropped = "lint: no strategy any more; whoever is free first takes a task\n"
    assert opscore("route", "lint", "--drop").stdout == dropped
    assert opscore("route", "lint").returncode != 0


def test_addressed_task_wakes_the_one_claim_that_may_have_it(client: Client) -> None:
    names = ["ann", "ben", "cid"]
    for name in names:
        client.register_agent(name, "remote", capabilities=["dig"])
    sessions = [client.begin_session(name).session_id for name in names]
    client.submit("dig", sticky="k")
    [(bound, first)] = [(one, got) for one in sessions if (got := client.claim(one, limit=5))]
    with ThreadPoolExecutor(3) as pool:
        claims = {one: pool.submit(client.claim, one, wait_s=4) for one in sessions}
        task = client.submit("dig", sticky="k")
        assert [got.id for got in claims.pop(bound).result()] == [task.id]
        assert [other.result() for other in claims.values()] == [[], []]
    assert first[0].id != task.id


def test_claim_never_exceeds_what_the_agent_said(client: Client) -> None:
    client.register_agent("ann", "remote", capabilities=["dig"], concurrency=2)
    session = client.begin_session("ann").session_id
    for _ in range(4):
        client.submit("dig")
    with ThreadPoolExecutor(4) as pool:
        got = [pool.submit(client.claim, session, limit=2) for _ in range(4)]
        assert sum(len(one.result()) for one in got) == 2
