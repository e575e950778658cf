"""Commands about agents and hosts: against a server that a test scripts, and a real platform."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from agents import output
from agents.models import Agent, AgentOutput, Host
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
    return {
        "name": host,
        "live": True,
        "pid": 1,
        "seen_at": "2026-01-01T00:00:00Z",
        "specs": [spec],
    }


@pytest.mark.parametrize(
    ("arguments", "place", "body", "said"),
    [
        (["drain", "a"], "POST /agents/a/drain", None, "takes nothing new, finishes what it has"),
        (["stop", "a"], "POST /agents/a/stop", {"force": False}, "finishes its task, then ends"),
        (["stop", "a", "--force"], "POST /agents/a/stop", {"force": True}, "ends at once; what it"),
        (["restart", "a"], "POST /agents/a/restart", None, "gets a new process once it has"),
        (["agent", "pause", "a"], "POST /agents/a/pause", None, "takes nothing new"),
        (["agent", "resume", "a"], "POST /agents/a/resume", None, "takes tasks again"),
        (
            ["agent", "register", "a", "--capability", "x", "--label", "gpu"],
            "POST /agents",
            {"name": "a", "kind": "remote", "capabilities": ["x"], "labels": ["gpu"]},
            "is registered, it may begin a session",
        ),
        (
            ["agent", "register", "a", "--spec", "lint"],
            "POST /agents",
            {"name": "a", "kind": "worker", "spec": "lint"},
            "is registered, its supervisor starts it",
        ),
    ],
)
def test_agents_are_changed(
    stub: Stub, asking: Any, arguments: list[str], *, place: str, body: Any, said: str
) -> None:
    stub.on("GET /hosts?limit=200", {"results": [pool("one")], "next": None})
    stub.on(place, AGENT, 202)
    done = asking(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"a: {said}")
    assert done.stdout.endswith(" (now: draining)\n")
    assert json.loads(asking(*arguments, "--json").stdout) == AGENT
    assert body is None or stub.bodies(place) == [body, body]


def test_only_registering_takes_a_spec(asking: Any) -> None:
    done = asking("agent", "pause", "a", "--spec", "lint")
    assert (done.returncode, "go with register" in done.stderr) == (2, True)


def test_a_long_reason_is_one_line_in_the_list_and_whole_for_one_agent(
    stub: Stub, asking: Any
) -> None:
    lines = ["it died: exit code 1", *(f"line {number}" for number in range(50))]
    broken = {**AGENT, "status": "error", "reason": "\n".join(lines), "restarts": 5}
    stub.on("GET /agents?limit=200", {"results": [broken], "next": None})
    stub.on("GET /agents/a", broken)
    [_, row] = asking("agents", "--all").stdout.splitlines()
    assert row.endswith("it died: exit code 1")
    shown = asking("agents", "a").stdout
    assert [line.strip() for line in shown.splitlines()][-51:] == lines
    assert "restarts      5" in shown
    assert json.loads(asking("agents", "a", "--json").stdout) == broken


def test_output_of_an_agent_is_shown_and_said_to_be_old(stub: Stub, asking: Any) -> None:
    told = {"lines": ["one", "two"], "fresh": False, "written_at": "2026-01-01T00:00:00Z"}
    stub.on("GET /agents/a/logs?lines=2", told)
    done = asking("logs", "--agent", "a", "--lines", "2")
    assert (done.returncode, done.stdout) == (0, "one\ntwo\n")
    assert "its supervisor does not answer; these lines were told: 2026-01-01" in done.stderr
    assert json.loads(asking("logs", "--agent", "a", "--lines", "2", "--json").stdout) == told


def test_log_of_a_task_is_shown(stub: Stub, asking: Any) -> None:
    rows = [{"id": 2, "text": "second"}, {"id": 1, "text": "first"}]
    stub.on("GET /tasks/t/logs?limit=100", {"results": rows, "next": None})
    done = asking("logs", "--task", "t")
    assert done.stdout == "first\nsecond\n", done.stderr
    both = asking("logs", "--task", "t", "--agent", "a")
    said = "opscore: Say one: the id of a task, the name of an agent, --agent or --task.\n"
    assert (both.returncode, both.stderr) == (2, said)


def test_log_of_a_task_is_followed_to_its_end(stub: Stub, asking: Any) -> None:
    task = {"id": "t", "key": "task", "status": "running"}
    stub.on("GET /tasks/t", task)
    stub.on("GET /tasks/t", {**task, "status": "completed"})
    one, two, three = ({"id": number, "text": f"line {number}"} for number in (1, 2, 3))
    stub.on("GET /tasks/t/logs?limit=1", {"results": [two], "next": None})
    stub.on("GET /tasks/t/logs?limit=200", {"results": [three, two, one], "next": None})
    arguments = ["logs", "-f", "--task", "t", "--lines", "1", "--every-s", "0.01"]
    done = asking(*arguments)
    assert (done.returncode, done.stdout) == (0, "line 2\nline 3\n"), done.stderr


def test_output_of_an_agent_is_followed_to_its_end(stub: Stub, asking: Any) -> None:
    for status in ("active", "active", "terminated"):
        stub.on("GET /agents/a", {**AGENT, "status": status})
    for lines in (["a", "b", "c"], ["a", "b", "c"], ["b", "c", "c", "d"]):
        stub.on("GET /agents/a/logs?lines=1000", {"lines": lines, "fresh": True})
    arguments = ["logs", "--follow", "--agent", "a", "--lines", "2", "--every-s", "0.01", "--json"]
    done = asking(*arguments)
    assert done.returncode == 0, done.stderr
    said = [json.loads(line)["text"] for line in done.stdout.splitlines()]
    assert said == ["b", "c", "c", "d"]


def test_events_are_shown(stub: Stub, asking: Any) -> None:
    event = {"id": 1, "kind": "task.lost", "at": "2026-01-01T00:00:00Z", "actor": "key:me"}
    stub.on("GET /agents/a", AGENT)
    place = "GET /events?run=r&task=t&agent=i&kind=task.lost&limit=50"
    stub.on(place, {"results": [event], "next": None})
    named = ["--run", "r", "--task", "t", "--agent", "a", "--kind", "task.lost"]
    done = asking("events", *named)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split() == ["2026-01-01T00:00:00Z", "task.lost", "key:me"]
    assert json.loads(asking("events", *named, "--json").stdout) == [event]


def test_hosts_show_their_pools(stub: Stub, asking: Any) -> None:
    stub.on("GET /hosts?limit=200", {"results": [pool("one")], "next": None})
    lines = asking("hosts", COLUMNS="120").stdout.splitlines()
    assert lines[0].split() == [
        "host",
        "live",
        "spec",
        "kind",
        "active",
        "agents",
        "file",
        "set",
        "capabilities",
    ]
    assert lines[1].split() == ["one", "yes", "lint", "worker", "3", "4", "2", "4", "lint,", "test"]
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
    nobody = asking("scale", "nonsense", "1")
    assert (nobody.returncode, nobody.stderr) == (
        2,
        "opscore: No host offers a spec 'nonsense'; there are: lint.\n",
    )
    for wrong in ("many", "1..", "1..2..3"):
        assert "A number of agents, MIN..MAX or" in asking("scale", "lint", wrong).stderr


def test_pool_is_given_a_rule(stub: Stub, asking: Any) -> None:
    stub.on("PUT /hosts/one/specs/lint", {**pool("one"), "live": False})
    done = asking("scale", "lint", "1..4", "--host", "one", "--queue-wait", "2.5")
    said = (
        "lint on one: 1 to 4 agents, more when a task waits 2.5 s; "
        "the host does not live: it begins when its supervisor does\n"
    )
    assert (done.returncode, done.stdout) == (0, said), done.stderr
    rule = {"min": 1, "max": 4, "queue_wait_s": 2.5}
    assert stub.bodies("PUT /hosts/one/specs/lint") == [{"autoscale": rule}]


def test_memory_and_cpu_stand_in_the_list(stub: Stub, asking: Any) -> None:
    used = {"memory_bytes": 50 * 2**20, "cpu_percent": 12.4}
    stub.on("GET /agents?limit=200", {"results": [{**AGENT, "usage": used}], "next": None})
    done = asking("agents", "--all", COLUMNS="120")
    lines = done.stdout.splitlines()
    assert lines, done.stderr
    assert lines[0].split() == ["agent", "kind", "status", "capabilities", "memory", "cpu", "id"]
    assert lines[1].split() == ["a", "process", "draining", "x", "50", "MiB", "12", "%", "i"]


def test_client_and_platform_agree(client: Client, project: Project) -> None:
    host = Host.objects.create(
        project=project, name="one", specs={"lint": {**pool("one")["specs"][0]}}
    )
    assert client.scale("one", "lint", 3)["specs"][0]["set_replicas"] == 3
    ruled = client.autoscale("one", "lint", least=1, most=4)["specs"][0]
    assert (ruled["set_replicas"], ruled["set_autoscale"]["max"]) == (None, 4)
    assert client.unscale("one", "lint")["specs"][0]["set_autoscale"] is None
    assert [found["name"] for found in client.hosts()] == ["one"]
    other = Host.objects.create(project=project, name="other")
    client.forget_host(other.name)
    assert [found["live"] for found in client.hosts()] == [False]
    agent = Agent.objects.create(project=project, name="a", kind="process", host=host.name)
    output.write({agent.pk: "one\ntwo"})
    AgentOutput.objects.update(written_at=timezone.now() - timedelta(minutes=1))
    answer = client.agent_logs("a", lines=1)
    assert (answer["lines"], answer["fresh"]) == (["two"], False)
    assert client.drain_agent("a").status == "terminated"
    assert client.stop_agent("a", force=True).status == "terminated"
