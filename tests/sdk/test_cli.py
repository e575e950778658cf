"""The `opscore` command, as a process of its own against a live server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from opscore_sdk import Client
from opscore_sdk.wire import AGENT_THERE
from tests.live_server import Server

SUM = """\
name: sum
inputs:
  type: object
  properties: {n: {type: integer}, word: {type: string}, fail: {type: boolean, default: false}}
  required: [n]
tasks:
  a:
    capability: add
    with: {n: "${{ inputs.n }}", fail: "${{ inputs.fail }}"}
outputs: {total: "${{ tasks.a.result }}"}
"""
BAD = "name: x\ntasks:\n  a:\n    capabilty: add\n  b: {capability: add, needs: [c]}\n"

TYPED = """\
name: typed
inputs:
  properties:
    n: {type: integer}
    flag: {type: boolean}
    part: {type: number}
    list: {type: array}
    map: {type: object}
    some: {anyOf: [{type: integer}, {type: "null"}]}
    spaced name: {type: integer}
    code: {type: string, pattern: "^[a-z]+$"}
    size: {enum: ["1", "2"]}
tasks: {a: {capability: add}}
"""
NESTED = "name: nested\ntasks: {block: {tasks: {hold: {uses: signal}}}}\n"
LINED = "name: lined\nconcurrency: {key: deploy}\ntasks: {hold: {uses: signal}}\n"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def sum_file(tmp_path: Path) -> str:
    (tmp_path / "sum.yaml").write_text(SUM)
    (tmp_path / "bad.yaml").write_text(BAD)
    return "sum.yaml"


@pytest.mark.usefixtures("worker")
def test_run_waits_shows_progress_and_prints_outputs(opscore: Any, sum_file: str) -> None:
    done = opscore("run", sum_file, "--input-json", "n=4", "--input", "word=x", "--wait")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"total": 4}
    assert done.stderr.startswith("run ")
    assert "completed  a on adder" in done.stderr
    assert "warning" not in done.stderr
    assert "run completed: 1 of 1 tasks" in done.stderr


@pytest.mark.usefixtures("worker")
def test_run_that_fails_ends_with_status_1_and_says_why(opscore: Any, sum_file: str) -> None:
    arguments = ["run", sum_file, "--input-json", "n=4", "--input-json", "fail=true", "--wait"]
    done = opscore(*arguments)
    assert done.returncode == 1
    assert "cannot add that" in done.stderr
    done = opscore(*arguments, "--json")
    assert done.returncode == 1
    run = json.loads(done.stdout)
    assert run["status"] == "failed"
    shown = opscore("status", run["id"])
    assert shown.returncode == 1
    assert "cannot add that" in shown.stdout


def test_run_without_wait_and_status_of_a_run_that_goes_on(opscore: Any, sum_file: str) -> None:
    done = opscore("run", sum_file, "--input-json", "n=4", "--priority", "9", "--json")
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert run["priority"] == 9
    again = opscore("run", sum_file, "--input-json", "n=4")
    assert "opscore status" in again.stdout
    assert again.stderr == "opscore: warning: no agent offers 'add' now; until one does, a waits\n"
    status = opscore("status", run["id"])
    assert status.returncode == 0
    assert "queued" in status.stdout
    assert json.loads(opscore("status", run["id"], "--json").stdout)["id"] == run["id"]
    listed = opscore("status").stdout
    assert run["id"] in listed
    assert "running" in listed
    assert len(json.loads(opscore("status", "--json", "--limit", "1").stdout)) == 1


def test_waiting_stops_after_the_time_given(opscore: Any, sum_file: str) -> None:
    done = opscore("run", sum_file, "--input-json", "n=1", "--wait", "--timeout-s", "0.2")
    assert done.returncode == 3
    assert "it goes on" in done.stderr


def test_every_problem_is_printed_with_file_and_line(opscore: Any, sum_file: str) -> None:
    for verb in ("validate", "run"):
        done = opscore(verb, "bad.yaml")
        assert done.returncode == 2
        lines = done.stderr.splitlines()
        assert any(line.startswith("bad.yaml:4: tasks.a") for line in lines), lines
        assert any(line.startswith("bad.yaml:5: tasks.b") for line in lines), lines
    problems = json.loads(opscore("validate", "bad.yaml", "--json").stdout)["errors"]
    assert {problem["line"] for problem in problems} >= {4, 5}


def test_validate_says_what_is_valid_and_where_it_warns(opscore: Any, sum_file: str) -> None:
    done = opscore("validate", sum_file)
    assert (done.returncode, done.stdout) == (0, "sum.yaml: valid, 1 task\n")
    message = "no agent offers `add` at present"
    assert done.stderr == f"sum.yaml:8: warning: tasks.a.capability: {message}\n"
    shown = json.loads(opscore("validate", sum_file, "--json").stdout)
    assert (shown["valid"], shown["tasks"]) == (True, 1)
    assert shown["warnings"] == [{"message": message, "path": "tasks.a.capability", "line": 8}]


@pytest.mark.parametrize(
    "given",
    [
        {
            "n=4": "n=4",
            "flag=true": "flag=true",
            "part=0.5": "part=0.5",
            "list=[1, 2]": "'list=[1, 2]'",
            'map={"a": 1}': """'map={"a": 1}'""",
            "some=5": "some=5",
            "spaced name=5": "'spaced name=5'",
            "code=12": None,
            "size=3": None,
        },
        {"flag=yes": "flag=JSON", 'n="4"': "n=JSON", "n2=4": None},
    ],
)
def test_a_text_where_something_else_is_wanted_gets_a_hint(
    opscore: Any, tmp_path: Path, given: dict[str, str | None]
) -> None:
    (tmp_path / "typed.yaml").write_text(TYPED)
    done = opscore("run", "typed.yaml", *(f"--input={pair}" for pair in given))
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    told, hints = lines[: len(given)], lines[len(given) :]
    assert all(line.startswith("typed.yaml: inputs") for line in told)
    assert hints == [
        f"opscore: hint: --input gives a text; for another value: --input-json {hint}"
        for hint in given.values()
        if hint
    ]


def test_a_value_that_was_given_as_json_gets_no_hint(opscore: Any, tmp_path: Path) -> None:
    (tmp_path / "typed.yaml").write_text(TYPED)
    done = opscore("run", "typed.yaml", "--input-json", 'n="4"', "--input", "code=ab")
    assert (done.returncode, "hint" in done.stderr) == (2, False)
    assert opscore("run", "typed.yaml", "--input-json", "n=4").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "nothing.yaml"], "nothing.yaml cannot be read"),
        (["run", "sum.yaml", "--input", "n"], "expected name=value"),
        (["run", "sum.yaml", "--input-json", "n={"], "not JSON"),
        (["run", "sum.yaml", "--input", "n=x"], "n"),
        (["run", "sum.yaml"], "n"),
        (["wibble"], "unknown COMMAND 'wibble'"),
        ([], "required"),
    ],
)
def test_wrong_usage_ends_with_status_2(
    opscore: Any, sum_file: str, arguments: list[str], said: str
) -> None:
    done = opscore(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_text_is_refused(opscore: Any, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not a UTF-8 text" in opscore("validate", "x.yaml").stderr


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"OPSCORE_API_URL": "http://127.0.0.1:1"}, "Nobody answers at http://127.0.0.1:1"),
        ({"OPSCORE_API_URL": "nonsense"}, "no address"),
        ({"OPSCORE_API_URL": "http://[::1"}, "no address"),
        ({"OPSCORE_API_KEY": "kéy"}, "OPSCORE_API_KEY holds characters"),
        ({"OPSCORE_API_KEY": "ok_wrong_key"}, "API key is not valid"),
        ({"OPSCORE_API_KEY": ""}, "OPSCORE_API_KEY is not set"),
        ({"OPSCORE_API_URL": ""}, "OPSCORE_API_URL is not set"),
    ],
)
def test_errors_are_one_sentence(opscore: Any, environ: dict[str, str], said: str) -> None:
    done = opscore("status", **environ)
    assert done.returncode == 3
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


NO_RUN = "opscore: {!r} is no id of a run; opscore runs --all shows the newest runs with their ids."
NO_TASK = (
    "opscore: {!r} is no id of a task; "
    "opscore approvals shows the tasks that wait for a decision, with their ids."
)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["status", "nope"], NO_RUN),
        (["status", "a/b"], NO_RUN),
        (["status", "01990000-0000-7000-8000-0000000000aa"], NO_RUN),
        (["cancel", "nope"], NO_RUN),
        (["pause", "nope"], NO_RUN),
        (["resume", "nope"], NO_RUN),
        (["rerun", "nope", "--wait"], NO_RUN),
        (["signal", "nope", "x"], NO_RUN),
        (["approve", "nope"], NO_TASK),
        (["approve", "01990000-0000-7000-8000-0000000000aa"], NO_TASK),
        (["reject", "nope", "--comment", "no"], NO_TASK),
    ],
)
def test_what_is_no_id_is_one_sentence(opscore: Any, arguments: list[str], sentence: str) -> None:
    done = opscore(*arguments)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == sentence.format(arguments[1]) + "\n"


def test_what_is_no_id_is_told_to_programs(opscore: Any) -> None:
    done = opscore("status", "wibble", "--json")
    assert done.returncode == 3
    told = json.loads(done.stdout)
    assert (told["status"], told["code"]) == (404, "not_found")
    assert told["error"].startswith("'wibble' is no id of a run")
    assert told["request_id"]
    assert len(done.stderr.splitlines()) == 1


def test_runs_below_others_are_listed_with_all(
    opscore: Any, tmp_path: Path, wait_until: Any
) -> None:
    (tmp_path / "nested.yaml").write_text(NESTED)
    top = json.loads(opscore("run", "nested.yaml", "--json").stdout)["id"]

    def listed(*more: str) -> list[str]:
        return [run["id"] for run in json.loads(opscore("status", "--json", *more).stdout)]

    below = wait_until(lambda: [run for run in listed("--all") if run != top])
    assert len(below) == 1
    assert listed() == [top]
    assert below[0] in opscore("status", "--all").stdout
    assert below[0] not in opscore("status").stdout
    assert below[0] in opscore("status", below[0]).stdout


def test_status_of_a_run_in_line_says_what_it_waits_for(opscore: Any, tmp_path: Path) -> None:
    (tmp_path / "lined.yaml").write_text(LINED)
    first, _, third = (
        json.loads(opscore("run", "lined.yaml", "--json").stdout)["id"] for _ in range(3)
    )
    shown = opscore("status", third)
    assert shown.returncode == 0
    assert shown.stdout.splitlines()[2] == (
        f"waits for the concurrency key 'deploy', 1 at a time; held by {first}; 1 more come first"
    )
    assert "waits for the concurrency key" not in opscore("status", first).stdout


def test_a_signal_that_nobody_waits_for_is_warned_of(opscore: Any, tmp_path: Path) -> None:
    (tmp_path / "lined.yaml").write_text(LINED)
    run = json.loads(opscore("run", "lined.yaml", "--json").stdout)["id"]
    done = opscore("signal", run, "hodl")
    assert (done.returncode, done.stdout) == (0, f"hodl sent to {run}\n")
    assert done.stderr == (
        "opscore: warning: No task of the run waits for a signal `hodl`; did you mean `hold`?\n"
    )
    done = opscore("signal", run, "hold", "--json")
    assert (json.loads(done.stdout)["warning"], done.stderr) == ("", "")


def test_place_is_read_from_the_file_that_make_up_writes(
    opscore: Any, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "var").mkdir()
    env = f"# a comment\nexport OPSCORE_API_URL='{server.url}'\nOPSCORE_API_KEY={server.key}\n"
    (tmp_path / "var" / "opscore.env").write_text(env)
    done = opscore("agents", OPSCORE_API_URL="", OPSCORE_API_KEY="")
    assert done.returncode == 0
    assert done.stdout == "No agent is registered, or all are terminated: opscore agents --all\n"
    assert opscore("status", OPSCORE_API_URL="", OPSCORE_API_KEY="").stdout.startswith(
        "There are no runs"
    )


@pytest.mark.usefixtures("worker")
def test_agents_are_listed_without_the_terminated_ones(opscore: Any, client: Client) -> None:
    assert opscore("agents", "--all").stdout.count("\n") == 2
    client.register_agent("gone", "remote")
    client.stop_agent("gone")
    text = opscore("agents").stdout
    (agent,) = json.loads(opscore("agents", "--json").stdout)
    assert agent["name"] == "adder"
    assert agent["id"] in text
    assert "active" in text
    assert "gone" not in text
    assert "terminated" in opscore("agents", "--all").stdout
    # The newest one is not shown, and does not count.
    (agent,) = json.loads(opscore("agents", "--json", "--limit", "1").stdout)
    assert agent["name"] == "adder"


def test_agents_of_every_status_but_one_are_listed() -> None:
    from agents.serializers import STATUSES

    assert {*AGENT_THERE, "terminated"} == set(STATUSES)


def test_interrupt_leaves_the_run_and_says_how_to_see_it(
    opscore: Any, server: Server, sum_file: str, tmp_path: Path, wait_until: Any
) -> None:
    env = {**os.environ, "OPSCORE_API_URL": server.url, "OPSCORE_API_KEY": server.key}
    env["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "opscore_sdk", "run", sum_file, "--input-json", "n=1"]
    waiting = subprocess.Popen(
        [*command, "--wait"], env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    assert waiting.stderr is not None
    assert "see it: opscore status" in waiting.stderr.readline()
    assert "no agent offers 'add'" in waiting.stderr.readline()
    assert "queued" in waiting.stderr.readline()
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=20)
    assert waiting.returncode == 130
    assert "The run goes on: opscore status" in said
    assert "Traceback" not in said
    assert "running" in opscore("status").stdout
