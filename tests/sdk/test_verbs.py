"""Commands over endpoints, as processes against a server that a test scripts."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from opscore_sdk.wire import AGENT_THERE
from tests.sdk.conftest import Stub

RUN_ID = "01990000-0000-7000-8000-0000000000aa"
AGENTS = f"GET /agents?{urlencode({'status': ','.join(AGENT_THERE), 'limit': 200})}"
LONG = "a very long reason that no table may cut: " + "x" * 150


def run_of(status: str = "running", **more: Any) -> dict[str, Any]:
    task = {"id": "t1", "key": "a", "status": status, "capability": "add", "attempt": 1}
    run = {"id": RUN_ID, "status": status, "workflow": "sum", "version": "3", "tasks": [task]}
    return {**run, "outputs": {"n": 1} if status == "completed" else None, **more}


def agent_of(name: str = "adder", **more: Any) -> dict[str, Any]:
    agent = {"id": f"id-{name}", "name": name, "kind": "remote", "status": "active"}
    return {**agent, "capabilities": ["add"], **more}


@pytest.fixture
def workflow(stub: Stub, tmp_path: Path) -> str:
    (tmp_path / "sum.yaml").write_text("name: sum\n")
    stub.on("POST /workflows", {"id": "w", "name": "sum", "version": "3", "created": True})
    stub.on("POST /workflows/sum/execute", run_of(), 201)
    stub.on("GET /agents?limit=200", {"results": [agent_of()], "next": None})
    return "sum.yaml"


def test_waiting_outlives_a_platform_that_is_away(stub: Stub, asking: Any, workflow: str) -> None:
    place = f"GET /runs/{RUN_ID}"
    for _ in range(5):
        stub.on(place, {"detail": "the database is away"}, 503, Retry_After="0")
    stub.on(place, run_of("completed"))
    done = asking("run", workflow, "--wait", "--patience", "1m")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == f"run {RUN_ID} of sum 3; see it: opscore status {RUN_ID}"
    assert json.loads(done.stdout) == {"n": 1}
    assert len(stub.bodies("POST /workflows/sum/execute")) == 1


def test_patience_that_is_over_leaves_the_run(stub: Stub, asking: Any, workflow: str) -> None:
    stub.on(f"GET /runs/{RUN_ID}", {"detail": "the database is away"}, 503)
    done = asking("run", workflow, "--wait", "--patience", "0")
    assert done.returncode == 3
    assert f"the database is away See: opscore status {RUN_ID}" in done.stderr


@pytest.mark.parametrize("agent", [{"paused": True}, {"status": "error"}, {"capabilities": []}])
def test_agents_that_will_not_come_are_warned_of(
    stub: Stub, asking: Any, workflow: str, agent: dict[str, Any]
) -> None:
    stub.answers["GET /agents?limit=200"].clear()
    stub.on("GET /agents?limit=200", {"results": [agent_of(**agent)], "next": None})
    assert "no agent offers 'add' now" in asking("run", workflow).stderr


def test_who_may_not_see_agents_is_not_warned(stub: Stub, asking: Any, workflow: str) -> None:
    stub.answers["GET /agents?limit=200"].clear()
    stub.on("GET /agents?limit=200", {"detail": "the key lacks the scope read"}, 403)
    done = asking("run", workflow)
    assert (done.returncode, done.stderr) == (0, "")


def test_warnings_of_the_platform_are_shown(stub: Stub, asking: Any, workflow: str) -> None:
    warnings = [{"message": "nobody reads it", "path": "tasks.a", "line": 3}, {"message": "odd"}]
    stub.on("POST /workflows/validate", {"valid": True, "tasks": 2, "warnings": warnings})
    done = asking("validate", workflow)
    assert done.stderr.splitlines() == [
        "sum.yaml:3: warning: tasks.a: nobody reads it",
        "sum.yaml: warning: odd",
    ]
    assert done.stdout == "sum.yaml: valid, 2 tasks\n"


def test_graphs_of_files_and_of_stored_workflows(stub: Stub, asking: Any, workflow: str) -> None:
    stub.on("POST /workflows/graph?format=text", {"format": "text", "graph": "a -> b\n"})
    stub.on("GET /workflows/sum/graph?format=mermaid", {"format": "mermaid", "graph": "graph TD"})
    assert asking("graph", workflow).stdout == "a -> b\n"
    assert stub.asked[-1][1] == "name: sum\n"
    assert asking("graph", "sum", "--format", "mermaid").stdout == "graph TD\n"
    shown = json.loads(asking("graph", "sum", "--format", "mermaid", "--json").stdout)
    assert shown == {"format": "mermaid", "graph": "graph TD"}
    missing = asking("graph", "other.yaml")
    assert (missing.returncode, "cannot be read" in missing.stderr) == (2, True)


@pytest.mark.parametrize(
    ("method", "verb", "status"),
    [("POST", "pause", "paused"), ("POST", "resume", "running"), ("PUT", "cancel", "cancelled")],
)
def test_runs_are_controlled(stub: Stub, asking: Any, method: str, verb: str, status: str) -> None:
    stub.on(f"{method} /runs/{RUN_ID}/{verb}", run_of(status))
    assert asking(verb, RUN_ID).stdout == f"{RUN_ID} {status}\n"
    assert json.loads(asking(verb, RUN_ID, "--json").stdout)["status"] == status


def test_what_is_not_possible_is_one_sentence(stub: Stub, asking: Any) -> None:
    stub.on(f"POST /runs/{RUN_ID}/pause", {"detail": "The run has ended."}, 409)
    done = asking("pause", RUN_ID)
    assert (done.returncode, done.stderr) == (3, "opscore: The run has ended.\n")


def test_a_run_is_run_again(stub: Stub, asking: Any, workflow: str) -> None:
    stub.on("POST /runs/old/rerun", run_of(), 201)
    stub.on(f"GET /runs/{RUN_ID}", run_of("failed"))
    assert RUN_ID in asking("rerun", "old").stdout
    done = asking("rerun", "old", "--from", "a", "--from", "b", "--inputs", '{"n": 2}', "--wait")
    assert done.returncode == 1
    assert "run failed" in done.stderr
    assert stub.bodies("POST /runs/old/rerun") == [
        {},
        {"from": ["a", "b"], "inputs": {"n": 2}},
    ]


def test_signals_carry_any_json(stub: Stub, asking: Any) -> None:
    stub.on(f"POST /runs/{RUN_ID}/signals/paid", {"delivered": True}, 202)
    assert asking("signal", RUN_ID, "paid").stdout == f"paid sent to {RUN_ID}\n"
    assert asking("signal", RUN_ID, "paid", "--data", '{"sum": [1]}', "--json").returncode == 0
    assert stub.bodies(f"POST /runs/{RUN_ID}/signals/paid") == [None, {"sum": [1]}]


def test_approvals_are_listed_and_decided(stub: Stub, asking: Any) -> None:
    row = {"task_id": "t1", "key": "publish", "run_id": RUN_ID, "role": "editor", "message": LONG}
    stub.on("GET /approvals?limit=50", {"results": [row], "next": None})
    stub.on("POST /tasks/t1/approval", {"id": "t1", "key": "publish", "status": "completed"})
    shown = asking("approvals").stdout
    assert RUN_ID in shown
    assert LONG in shown
    assert asking("approve", "t1").stdout == "t1 publish completed\n"
    assert asking("reject", "t1", "--comment", "too early").returncode == 0
    assert stub.bodies("POST /tasks/t1/approval") == [
        {"decision": "approve", "comment": ""},
        {"decision": "reject", "comment": "too early"},
    ]


def test_schedules_are_listed(stub: Stub, asking: Any) -> None:
    stub.on("GET /schedules?limit=50", {"results": [], "next": None})
    row = {"id": "s", "name": "nightly", "workflow": "sum", "every_s": 60, "paused": True}
    stub.on("GET /schedules?limit=50", {"results": [row], "next": None})
    assert asking("schedules").stdout == "There are no schedules.\n"
    head, line = asking("schedules").stdout.splitlines()
    assert head.split() == ["schedule", "workflow", "every", "s", "paused"]
    assert line.split() == ["nightly", "sum", "60", "true"]
    assert json.loads(asking("schedules", "--json").stdout) == [row]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rerun", "r", "--inputs", "[1]"], "an object is expected"),
        (["rerun", "r", "--inputs", "{"], "--inputs: not JSON"),
        (["signal", "r", "s", "--data", "{"], "--data: not JSON"),
        (["run", "x.yaml", "--patience", "long"], "'long' is no time"),
        (["graph", "x", "--format", "dot"], "unknown --format 'dot'; known: text, mermaid"),
        (["signal", "r", "a/b"], "at least one character, and no `/`"),
        (["signal", "r", ""], "at least one character, and no `/`"),
    ],
)
def test_wrong_usage_asks_nothing(stub: Stub, asking: Any, arguments: list[str], said: str) -> None:
    done = asking(*arguments)
    assert (done.returncode, stub.asked) == (2, [])
    assert said.replace("an object", "object") in done.stderr.replace("a JSON object", "object")


def test_help_says_what_the_exit_status_means(asking: Any) -> None:
    assert "the run failed or was cancelled" in asking("run", "--help").stdout


def test_a_check_needs_the_platform_and_its_help_says_so(asking: Any, workflow: str) -> None:
    for arguments in (["validate", workflow], ["graph", workflow]):
        said = " ".join(asking(arguments[0], "--help").stdout.split())
        assert "(asks the platform, which must be running)" in said
        away = asking(*arguments, OPSCORE_API_URL="http://127.0.0.1:1")
        assert (away.returncode, "Nobody answers" in away.stderr) == (3, True)


def test_a_server_that_is_not_the_platform_is_told_as_that(stub: Stub, asking: Any) -> None:
    stub.on("GET /runs/nope", "no such page", 404)
    assert "is it Ops-Core?" in asking("status", "nope").stderr


def test_nothing_is_cut_in_a_pipe(stub: Stub, asking: Any) -> None:
    agents = [
        agent_of("a" * 60, reason=f"{LONG} and\x1b[2J more\nsecond line"),
        agent_of(paused=True),
    ]
    stub.on(AGENTS, {"results": agents, "next": None})
    stub.on("GET /runs?parent=none&limit=20", {"results": [run_of()], "next": None})
    shown = asking("agents").stdout
    assert "a" * 60 in shown
    assert f"{LONG} and [2J more\n" in shown
    assert "second line" not in shown
    assert "paused" in shown
    assert RUN_ID in asking("status").stdout


def test_a_narrow_terminal_cuts_the_last_column_and_no_id(stub: Stub, tmp_path: Path) -> None:
    agents = [agent_of(reason=LONG, status="completed")]
    stub.on(AGENTS, {"results": agents, "next": None})
    ours, theirs = pty.openpty()
    env = {**os.environ, "OPSCORE_API_URL": stub.url, "OPSCORE_API_KEY": "k", "COLUMNS": "80"}
    env["PYTHONPATH"] = str(Path(__file__).parents[2])
    env.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "opscore_sdk", "agents"]
    subprocess.run(command, env=env, stdout=theirs, cwd=tmp_path, check=True, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "id-adder" in shown
    assert LONG not in shown
    assert "…" in shown
    assert "\x1b[32mcompleted" in shown
