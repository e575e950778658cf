"""Parts of the supervisor at their edges: output, samples, leftovers, faults."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from agents import pools, programs
from agents.limits import Limits
from agents.models import Agent, Host
from agents.specs import Spec, parse
from agents.supervisor import faults, orders, processes
from agents.supervisor.autoscaler import STEP_S, Autoscaler
from agents.supervisor.children import Child, Memory
from agents.supervisor.records import Wanted
from agents.supervisor.sampling import Sampler
from agents.supervisor.scribe import Scribe
from agents.supervisor.wire import Wire
from opscore.models import Project
from tests.conftest import WaitUntil


@pytest.fixture
def scribe() -> Iterator[Scribe]:
    scribe = Scribe()
    scribe.start()
    yield scribe
    scribe.stop()


def wanted(kind: str = "process", **changes: object) -> Wanted:
    fields: dict[str, object] = {
        "id": uuid4(),
        "name": "a",
        "project_id": 1,
        "project": "default",
        "spec": "a",
        "kind": kind,
        "capabilities": ["x"],
        "labels": [],
        "running": True,
        "paused": False,
        "generation": 1,
        "status": "active",
        "live_session": None,
        "is_ready": False,
        "claims": 0,
        "condemned": "",
    }
    return Wanted(**(fields | changes))  # type: ignore[arg-type]


@pytest.fixture
def child() -> Iterator[Child]:
    mine, its = socket.socketpair()
    yield Child(wanted(), uuid4(), Wire(mine), -1, [], started=0.0, heard=0.0)
    mine.close()
    its.close()


def test_output_is_kept_in_two_bounded_files(
    scribe: Scribe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.supervisor.scribe.MAX_LOG_BYTES", 10_000)
    path = tmp_path / "deep" / "a.log"
    writing, handle = scribe.pipe(path)
    for number in range(5_000):
        os.write(writing, f"line {number}\n".encode())
    os.close(writing)
    scribe.finish(handle)
    sizes = [file.stat().st_size for file in path.parent.iterdir()]
    assert len(sizes) == 2
    # One read of a pipe may be larger than a file should be.
    assert sum(sizes) < 200_000
    assert orders.last_lines(path, 1) == "line 4999"
    scribe.finish(handle)


def test_output_that_cannot_be_kept_stops_nobody(
    scribe: Scribe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "log").write_text("no folder")
    writing, handle = scribe.pipe(tmp_path / "log" / "a.log")
    os.write(writing, b"lost\n")
    os.close(writing)
    scribe.finish(handle)
    assert "supervisor.output_lost" in caplog.text


def test_what_was_written_just_before_the_end_is_kept(tmp_path: Path) -> None:
    scribe = Scribe()
    scribe.start()
    writing, _ = scribe.pipe(tmp_path / "a.log")
    os.write(writing, b"last words\n")
    scribe.stop()
    os.close(writing)
    assert (tmp_path / "a.log").read_text() == "last words\n"


def test_samples_count_what_an_agent_started_and_tell_changes_only(wait_until: WaitUntil) -> None:
    line = "sleep 60 & i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo; sleep 60"
    agent = uuid4()
    with subprocess.Popen(
        ["sh", "-c", line], start_new_session=True, stdout=subprocess.PIPE
    ) as process:
        sampler = Sampler()
        leaders = {agent: process.pid}
        first = wait_until(lambda: sampler.sample(leaders, 0.0))
        assert (first[agent].cpu_percent, process.stdout is None) == (0.0, False)
        if process.stdout is not None:
            process.stdout.readline()
        later = sampler.sample(leaders, 1.0)
        assert later[agent].cpu_percent > 1
        alone = psutil.Process(process.pid).memory_info().rss
        assert sampler.last[agent].memory > alone
        clock = itertools.count(2.0)
        wait_until(lambda: sampler.sample(leaders, next(clock)) == {})
        os.killpg(process.pid, 9)
    wait_until(lambda: sampler.sample(leaders, next(clock)) == {} == sampler.last)
    sampler.forget(agent)


def test_leftovers_are_known_by_their_mark(tmp_path: Path) -> None:
    env = {**os.environ, processes.MARK: processes.mark_of("here", str(tmp_path))}
    line = "import time; print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", line], env=env, stdout=subprocess.PIPE) as mine:
        assert mine.stdout is not None
        mine.stdout.readline()
        assert processes.end_leftovers("there", str(tmp_path)) == []
        assert processes.end_leftovers("here", str(tmp_path)) == [mine.pid]
        assert mine.wait(10) == -9
    assert processes._session_of(2**22 + 1) == 0


def test_faults_of_programs_and_workers_are_named(child: Child) -> None:
    spec = Spec("a", "process", start_timeout_s=3, limits=Limits(memory=2**20))
    assert faults.of(child, spec, 0, 30, now=3.0) == ""
    assert "within 3 s" in faults.of(child, spec, 0, 30, now=3.1)
    child.ready = True
    # Its beats are the API's matter.
    assert faults.of(child, spec, 0, 30, now=300.0) == ""
    assert faults.of(child, spec, 2**21, 30, now=4.0) == (
        "it used 2 MiB of memory, more than limits.memory: 1 MiB"
    )
    assert faults.of(child, None, 2**21, 30, now=4.0) == ""
    child.agent = wanted("worker")
    assert faults.of(child, spec, 2**21, 30, now=4.0) == ""
    assert faults.of(child, None, 0, 30, now=31.0) == "silent for 30 s"
    assert faults.limit_hit(spec, 1, 0, "MemoryError") == (
        "it died (exit code 1): it ran into its memory limit of 1 MiB (limits.memory)"
    )
    assert faults.limit_hit(spec, 1, 0, "other") == ""


def test_memory_learns_of_a_program_from_its_own_session_only(child: Child) -> None:
    memory = Memory(child=child)
    memory.look(wanted(live_session=uuid4(), is_ready=True, claims=7))
    assert (child.ready, child.tasks) == (False, 0)
    mine = wanted(live_session=child.session_id, is_ready=True, claims=7, condemned="late")
    memory.look(mine)
    assert (child.ready, child.tasks, child.beats_itself) == (True, 7, True)
    assert (memory.want(mine).live_session, memory.want(mine).condemned) == (True, "late")
    gone = wanted(live_session=None)
    assert memory.want(gone).live_session is False
    child.stopping = "retired"
    assert memory.want(gone).live_session is True
    child.was_idle = True
    ended = memory.ended(1.0, -15)
    assert (ended.drained, ended.reason) == (True, "retired")


def test_reasons_why_a_program_does_not_start(tmp_path: Path) -> None:
    missing = FileNotFoundError(2, "No such file")
    assert programs.why_not(missing, "x", str(tmp_path / "no")).startswith("there is no folder")
    assert "there is no program 'x'" in programs.why_not(missing, "x", str(tmp_path))
    assert "chmod +x" in programs.why_not(PermissionError(13, "no"), "x", str(tmp_path))
    assert programs.why_not(ValueError("embedded null byte"), "x", "/") == "embedded null byte"


def test_environment_of_a_program_names_its_virtual_environment() -> None:
    found = programs.environment("/venv/bin", {"A": "b"})
    assert (found["VIRTUAL_ENV"], found["A"]) == ("/venv", "b")
    assert found["PATH"].startswith("/venv/bin:")
    assert "VIRTUAL_ENV" not in programs.environment("", {})


@pytest.mark.django_db
def test_rule_leaves_a_pool_alone_that_an_operator_has_set(
    project: Project, tmp_path: Path
) -> None:
    text = """
agents:
  a: {handlers: x.y, capabilities: [x], autoscale: {min: 2, max: 4, queue_wait: 1s}}
  b: {handlers: x.y, capabilities: [y]}
"""
    specs = parse(text, base=tmp_path)
    host = Host.objects.create(project=project, name="one", specs={"a": {}, "b": {}})
    Agent.objects.create(project=project, name="a-1", kind="worker", spec="a", host="one")
    scaler = Autoscaler(specs)
    scaler.step(project, "one", 0.0)
    assert pools.sizes(project, "one", specs) == {"a": 2, "b": 1}
    pools.write_scaled(project, "one", "a", 9)
    assert pools.sizes(project, "one", specs)["a"] == 4
    pools.scale(host, "a", 0)
    scaler.step(project, "one", STEP_S)
    assert pools.sizes(project, "one", specs)["a"] == 0
    scaler.step(project, "one", STEP_S + 0.1)
    Autoscaler({}).step(project, "one", 0.0)
