"""Commands about agents and hosts: against a server that a test scripts, and a real platform."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agents import output
from agents.models import Agent, Host
from opscore.models import Project
from opscore_sdk import Client
from tests.sdk.conftest import Stub

AGENT = {"id": "i", "name": "a", "kind": "process", "status": "draining", "capabilities": ["x"]}


def pool(host: str) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "name": "lint",
        "kind": "worker",
        "capabilities": ["lint", "test"],
        "labels": [],
    }
    spec |= {"replicas": 2, "set_replicas": 4, "scaled_replicas": None, "agents": 4, "active": 3}
    return {"name": host, "pid": 1, "seen_at": "2026-01-01T00:00:00Z", "specs": [spec]}


@pytest.mark.parametrize(
    ("arguments", "place", "body"),
    [
        (["drain", "a"], "POST /agents/a/drain", None),
        (["stop", "a"], "POST /agents/a/stop", {"force": False}),
        (["stop", "a", "--force"], "POST /agents/a/stop", {"force": True}),
        (["restart", "a"], "POST /agents/a/restart", None),
    ],
)
def test_agents_are_changed(
    stub: Stub, asking: Any, arguments: list[str], place: str, body: Any
) -> None:
    stub.on(place, AGENT, 202)
    done = asking(*arguments)
    assert (done.returncode, done.stdout) == (0, "a draining\n"), done.stderr
    assert body is None or stub.bodies(place) == [body]


def test_output_of_an_agent_is_shown_and_said_to_be_old(stub: Stub, asking: Any) -> None:
    told = {"lines": ["one", "two"], "fresh": False, "written_at": "2026-01-01T00:00:00Z"}
    stub.on("GET /agents/a/logs?lines=2", told)
    done = asking("logs", "--agent", "a", "--lines", "2")
    assert (done.returncode, done.stdout) == (0, "one\ntwo\n")
    assert "its supervisor does not answer; these lines were told: 2026-01-01" in done.stderr
    assert json.loads(asking("logs", "--agent", "a", "--lines", "2", "--json").stdout) == told


def test_log_of_a_task_is_shown(stub: Stub, asking: Any) -> None:
    rows = [{"text": "second"}, {"text": "first"}]
    stub.on("GET /tasks/t/logs?limit=100", {"results": rows, "next": None})
    assert asking("logs", "--task", "t").stdout == "first\nsecond\n"
    both = asking("logs", "--task", "t", "--agent", "a")
    assert (both.returncode, both.stderr) == (2, "opscore: Say either --agent NAME or --task ID.\n")


def test_hosts_show_their_pools(stub: Stub, asking: Any) -> None:
    stub.on("GET /hosts?limit=200", {"results": [pool("one")], "next": None})
    lines = asking("hosts", COLUMNS="120").stdout.splitlines()
    assert lines[0].split() == [
        "host",
        "spec",
        "kind",
        "active",
        "agents",
        "file",
        "set",
        "capabilities",
    ]
    assert lines[1].split() == ["one", "lint", "worker", "3", "4", "2", "4", "lint,", "test"]
    assert json.loads(asking("hosts", "--json").stdout) == [pool("one")]


def test_pool_is_scaled_on_the_only_host(stub: Stub, asking: Any) -> None:
    stub.on("GET /hosts?limit=200", {"results": [pool("one")], "next": None})
    stub.on("PUT /hosts/one/specs/lint", pool("one"))
    done = asking("scale", "lint", "4")
    assert (done.returncode, done.stdout) == (0, "lint on one: 4 agents\n"), done.stderr
    assert stub.bodies("PUT /hosts/one/specs/lint") == [{"replicas": 4}]


def test_scaling_asks_for_the_host_and_for_a_number(stub: Stub, asking: Any) -> None:
    stub.on("GET /hosts?limit=200", {"results": [pool("one"), pool("two")], "next": None})
    refused = asking("scale", "lint", "4")
    assert refused.returncode == 2
    assert "Say --host: the hosts that offer 'lint' are: one, two." in refused.stderr
    assert "A number of agents or `file` is expected" in asking("scale", "lint", "many").stderr


def test_memory_and_cpu_stand_in_the_list(stub: Stub, asking: Any) -> None:
    used = {"memory_bytes": 50 * 2**20, "cpu_percent": 12.4}
    stub.on("GET /agents?limit=200", {"results": [{**AGENT, "usage": used}], "next": None})
    lines = asking("agents", COLUMNS="120").stdout.splitlines()
    assert lines[0].split() == ["agent", "kind", "status", "capabilities", "memory", "cpu", "id"]
    assert lines[1].split() == ["a", "process", "draining", "x", "50", "MiB", "12", "%", "i"]


def test_client_and_platform_agree(client: Client, project: Project) -> None:
    host = Host.objects.create(
        project=project, name="one", specs={"lint": {**pool("one")["specs"][0]}}
    )
    assert client.scale("one", "lint", 3)["specs"][0]["set_replicas"] == 3
    assert client.unscale("one", "lint")["specs"][0]["set_replicas"] is None
    assert [found["name"] for found in client.hosts()] == ["one"]
    agent = Agent.objects.create(project=project, name="a", kind="process", host=host.name)
    output.write({agent.pk: "one\ntwo"})
    answer = client.agent_logs("a", lines=1)
    assert (answer["lines"], answer["fresh"]) == (["two"], False)
    assert client.drain_agent("a").status == "terminated"
    assert client.stop_agent("a", force=True).status == "terminated"
