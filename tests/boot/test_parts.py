"""Parts of the platform: restart with a growing delay, ports, what the terminal shows."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest

from opscore.config import ROOT, Config
from opscore.errors import ConflictError, InvalidError
from opscore.platform.arrival import Arrival
from opscore.platform.important import ImportantLines
from opscore.platform.parts import Part
from opscore.platform.ports import address_of, choose_port, url_of
from opscore.platform.probe import Probe, wanted_agents
from opscore.platform.sentences import told
from tests.conftest import WaitUntil

SLEEPER = [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"]


def test_a_part_that_dies_is_started_again_after_a_delay(
    tmp_path: Path, wait_until: WaitUntil
) -> None:
    part = Part("sleeper", SLEEPER, tmp_path)
    part.start(dict(os.environ))
    try:
        first = part.pid
        assert part.keep_running() == ""
        os.kill(first, signal.SIGKILL)
        news = wait_until(part.keep_running)
        assert "sleeper ended with SIGKILL" in news
        assert "in 0.5 s" in news
        wait_until(lambda: part.keep_running() == "" and part.pid)
        assert part.pid != first
        os.kill(part.pid, signal.SIGKILL)
        assert "in 1 s" in wait_until(part.keep_running)
    finally:
        part.stop()
    assert part.pid == 0


def test_what_a_part_started_itself_ends_with_it(tmp_path: Path, wait_until: WaitUntil) -> None:
    script = (
        "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c',"
        "'import time; time.sleep(600)']); print(child.pid, flush=True); time.sleep(600)"
    )
    part = Part("family", [sys.executable, "-c", script], tmp_path)
    part.start(dict(os.environ))
    child = int(wait_until(lambda: part.log.read_text().strip()))
    part.stop()
    wait_until(lambda: not psutil.pid_exists(child) or _is_zombie(child))


def test_a_part_ends_when_its_platform_is_killed(tmp_path: Path, wait_until: WaitUntil) -> None:
    script = (
        "import os, sys, time; from pathlib import Path; from opscore.platform.parts import Part\n"
        f"part = Part('sleeper', {SLEEPER!r}, Path(sys.argv[1])); part.start(dict(os.environ))\n"
        "print(part.pid, flush=True); time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as platform:
        assert platform.stdout is not None
        pid = int(platform.stdout.readline())
        assert psutil.pid_exists(pid)
        platform.kill()
    wait_until(lambda: not psutil.pid_exists(pid) or _is_zombie(pid))


def test_only_warnings_errors_and_new_lines_reach_the_terminal(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    log.write_text("2026 [error    ] of an earlier life\n")
    important = ImportantLines("web", log)
    with log.open("a") as file:
        file.write("2026 [info     ] all is well\n2026 \x1b[31m[warning  ]\x1b[0m slow\n")
        file.write('{"event": "gone", "level": "error"}\n2026 [error    ] half a li')
    assert list(important.fresh()) == [
        "web: 2026 [warning  ] slow",
        "web: gone",
    ]
    with log.open("a") as file:
        file.write("ne\n" + "2026 [error    ] again\n" * 30)
    lines = list(important.fresh())
    assert lines[0] == "web: 2026 [error    ] half a line"
    assert lines[-1] == f"web: 11 more in {log}"
    assert list(important.fresh()) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "2026-11-21T11:15:30.535821Z [warning  ] agent.restarting               [agents.x] "
            "agent=historian-1 agent_id=01a1 reason='it died: SIGKILL' was=active",
            "agent historian-1 has ended: it died: SIGKILL",
        ),
        (
            "2026-11-21T11:15:30Z [warning  ] agent.error  [agents.x] agent=a "
            "reason=\"it died: exit code 78\\nTraceback\\nNo module named 'x'\"",
            "agent a was given up: it died: exit code 78 | No module named 'x'",
        ),
        (
            '{"event": "task.lost", "key": "history", "losses": 1, "level": "warning"}',
            "task history has lost its agent and runs again",
        ),
        (
            "2026-11-21T11:15:30Z [warning  ] report.refused [tasks.x] key=a task=01",
            "report refused (key: a, task: 01)",
        ),
        ("2026-11-21T11:15:30Z [error    ] all_gone [x]", "all gone"),
        ('{"event": "task.lost", "level": "warning"}', "task lost"),
        ("[ERROR] granian said this", "[ERROR] granian said this"),
        ('{"level": "error"}', '{"level": "error"}'),
    ],
)
def test_log_lines_become_sentences(line: str, said: str) -> None:
    assert told(line) == said


def test_a_taken_default_port_is_stepped_over_but_a_named_one_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConflictError, match=f"Port {port} on 127.0.0.1 is taken"):
            choose_port(Config(port=port))
        default = Config.model_construct(_fields_set=set(), host="127.0.0.1", port=port)
        assert choose_port(default) > port
    assert choose_port(Config(port=0)) > 0


def test_the_hosts_file_says_how_many_agents_to_wait_for(tmp_path: Path) -> None:
    file = tmp_path / "agents.yaml"
    file.write_text("agents:\n  a: {kind: worker}\n  b: {replicas: 3}\n  c: {replicas: 0}\n")
    assert wanted_agents(file, {}) == {"a-1", "b-1", "b-2", "b-3"}
    file.write_text("agents: {a: {replicas: 2}, b: {autoscale: {min: 3, max: 9}}, c: {}}")
    assert len(wanted_agents(file, {})) == 6
    assert wanted_agents(file, {"a": 0, "b": 1, "gone": 7}) == {"b-1", "c-1"}
    file.write_text("agents: [not, a, mapping]")
    assert wanted_agents(file, {}) == frozenset()
    assert wanted_agents(tmp_path / "absent.yaml", {}) == frozenset()


def test_agents_that_an_operator_stopped_are_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "agents.yaml"
    file.write_text("agents:\n  a: {kind: worker}\n  b: {replicas: 2}\n")
    began = datetime.now(UTC)

    def agent(name: str, status: str, desired: str, age_s: float) -> dict[str, str]:
        changed_at = (began - timedelta(seconds=age_s)).isoformat()
        row = {"name": name, "host": "here", "spec": name[0], "status": status, "reason": ""}
        return {**row, "desired": desired, "changed_at": changed_at}

    agents = [
        agent("a-1", "active", "running", -1),
        agent("b-1", "terminated", "stopped", 60),
        agent("b-2@here", "error", "stopped", -1),
    ]
    said: list[str] = []
    with answering({"results": agents, "next": None}) as url:
        config = Config(agents_file=file, node_name="here")
        Arrival(config, Probe(url), began, said.append).wait(lambda: None, within_s=0)
        assert said == []
        agents[1]["desired"] = "running"
        Arrival(config, Probe(url), began, said.append).wait(lambda: None, within_s=0)
    assert said == ["Only 1 of 2 agents are active (1 not begun)."]


def test_the_numbers_of_agents_that_are_there_add_up(tmp_path: Path) -> None:
    file = tmp_path / "agents.yaml"
    file.write_text("agents:\n  a: {replicas: 6}\n")
    began = datetime.now(UTC)
    row = {"host": "here", "spec": "a", "desired": "running", "reason": "no"}
    row["changed_at"] = began.isoformat()
    statuses = ["active", "busy", "error", "restarting", "restarting"]
    agents = [{**row, "name": f"a-{n}", "status": status} for n, status in enumerate(statuses, 1)]
    # One that was registered by name is none of those that the file wants.
    agents.append({**row, "name": "by-name", "status": "active"})
    said: list[str] = []
    with answering({"results": agents, "next": None}) as url:
        config = Config(agents_file=file, node_name="here")
        Arrival(config, Probe(url), began, said.append).wait(lambda: None, within_s=0)
    assert said == [
        "supervisor: agent a-3 was given up: no",
        "Only 2 of 6 agents are active (1 error, 2 restarting, 1 not begun).",
    ]


@contextmanager
def answering(body: dict[str, Any]) -> Iterator[str]:
    """Give the address of a web server that always answers with that body."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("host", "error", "said"),
    [
        ("nowhere.invalid", InvalidError, "OPSCORE_HOST: there is no address 'nowhere.invalid'"),
        ("192.0.2.1", ConflictError, "cannot listen on 192.0.2.1"),
    ],
)
def test_address_that_is_not_this_machines_is_refused_in_a_sentence(
    host: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        choose_port(Config(host=host, port=0))


def test_addresses_of_both_families_become_urls() -> None:
    assert address_of("::1") == "::1"
    assert address_of("localhost") in {"127.0.0.1", "::1"}
    assert url_of("::1", 80) == url_of("::", 80) == "http://[::1]:80"
    assert url_of("0.0.0.0", 80) == "http://127.0.0.1:80"


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
