"""Parts of the supervisor at their edges: output, samples, leftovers, faults."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from agents import pools, programs
from agents.autoscale import Autoscale, Pressure
from agents.limits import Limits
from agents.models import Agent, Host
from agents.specs import Spec, parse
from agents.supervisor import faults, orders, processes
from agents.supervisor.autoscaler import STEP_S, Autoscaler
from agents.supervisor.children import Child, Memory
from agents.supervisor.records import Wanted
from agents.supervisor.sampling import Sampler
from agents.supervisor.scribe import Roll, Scribe
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
    roll = Roll(Path("a.log"))
    yield Child(wanted(), uuid4(), Wire(mine), roll, [], started=0.0, heard=0.0)
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
        # What could not be written is still worth it.
        assert sampler.sample(leaders, 0.5).keys() == first.keys()
        first = sampler.sample(leaders, 0.0)
        sampler.note(first)
        assert (first[agent].cpu_percent, process.stdout is None) == (0.0, False)
        if process.stdout is not None:
            process.stdout.readline()
        later = sampler.sample(leaders, 1.0)
        assert later[agent].cpu_percent > 1
        alone = psutil.Process(process.pid).memory_info().rss
        assert sampler.last[agent].memory > alone
        clock = itertools.count(2.0)
        sampler.note(later)

        def is_quiet() -> bool:
            news = sampler.sample(leaders, next(clock))
            sampler.note(news)
            return not news

        wait_until(is_quiet)
        os.killpg(process.pid, 9)
    wait_until(lambda: sampler.sample(leaders, next(clock)) == {} == sampler.last)
    sampler.forget(agent)


def test_memory_that_processes_share_counts_once(wait_until: WaitUntil) -> None:
    line = (
        "import os, time; held = bytearray(64 * 2**20); "
        "held[::4096] = b'x' * (len(held) // 4096); "
        "[os.fork() for _ in range(2)]; print(flush=True); time.sleep(60)"
    )
    agent, sampler = uuid4(), Sampler()
    with subprocess.Popen(
        [sys.executable, "-c", line], start_new_session=True, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        for _ in range(4):
            process.stdout.readline()
        sampler.sample({agent: process.pid}, 1.0)
        assert sampler.last[agent].memory > 4 * 64 * 2**20
        assert sampler.memory(agent, process.pid, 2**20) < 2 * 64 * 2**20
        # Nobody looks closer while it is below its limit.
        assert sampler.memory(agent, process.pid, 2**40) == sampler.last[agent].memory
        os.killpg(process.pid, 9)
    assert sampler.memory(uuid4(), None, 1) == 0


def test_leftovers_are_known_by_their_mark(tmp_path: Path) -> None:
    env = {**os.environ, processes.MARK: processes.mark_of("here", str(tmp_path), "s-1")}
    line = "import time; print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", line], env=env, stdout=subprocess.PIPE) as mine:
        assert mine.stdout is not None
        mine.stdout.readline()
        assert processes.end_leftovers("there", str(tmp_path)) == []
        assert processes.end_leftovers("here", str(tmp_path)) == [mine.pid]
        assert mine.wait(10) == -9
    assert processes._session_of(2**22 + 1) == 0


def test_orphans_of_one_agent_end_with_it_and_those_of_others_do_not(wait_until: WaitUntil) -> None:
    # A process of its own adopts what two agents left; only it may kill its children.
    done = subprocess.run(
        [sys.executable, "-c", ORPHANS], capture_output=True, text=True, timeout=60, check=True
    )
    killed, alive, unmarked = done.stdout.split()
    assert (killed, alive, unmarked) == ("1", "other", "plain")


ORPHANS = """
import os, psutil, subprocess, sys, time
from agents.supervisor import processes

processes.adopt_orphans()
ME = psutil.Process()


def leave(word, env):
    # Its parent ends at once, so it is ours, in a session of its own.
    line = ["setsid", "-f", sys.executable, "-c", "import time; time.sleep(60)", word]
    subprocess.run(line, env={"PATH": os.environ["PATH"], **env}, check=True)


def left():
    return {child.cmdline()[-1] for child in ME.children() if child.cmdline()}


leave("dead", {processes.MARK: "h:v:one"})
leave("other", {processes.MARK: "h:v:two"})
leave("plain", {})
while left() != {"dead", "other", "plain"}:
    time.sleep(0.01)
killed = processes.kill_orphans_of({2**22 + 1: "h:v:one", 2**22 + 2: ""}, [])
print(len(killed), *sorted(left()))
processes.kill_strays()
assert not left()
"""


def test_end_of_one_output_is_not_taken_for_that_of_another(scribe: Scribe, tmp_path: Path) -> None:
    writing, first = scribe.pipe(tmp_path / "a.log")
    os.close(writing)
    scribe.finish(first)
    # The descriptor of the first is used again, for a pipe that stays open.
    still, second = scribe.pipe(tmp_path / "b.log")
    began = time.monotonic()
    scribe.finish(first)
    assert time.monotonic() - began < 0.5
    assert not second.ended.is_set()
    os.close(still)


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


@pytest.mark.django_db
def test_rule_of_an_operator_begins_with_the_present_size_and_goes_before_the_file(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = parse("agents: {a: {handlers: x.y, capabilities: [x], replicas: 3}}", base=tmp_path)
    offered = {name: spec.offered() for name, spec in specs.items()}
    host = Host.objects.create(project=project, name="one", specs=offered)
    pressure = Pressure(waited_s=0.0, busy=0)
    monkeypatch.setattr("agents.supervisor.autoscaler._pressure", lambda *_: pressure)
    scaler = Autoscaler(specs)

    def agents(now: float) -> int:
        scaler.step(project, "one", now)
        return pools.sizes(project, "one", specs)["a"]

    pools.set_rule(host, "a", Autoscale(1, 6, 2.0))
    assert agents(1.0) == 3
    pressure = Pressure(waited_s=2.0, busy=3)
    assert [agents(now) for now in (2.0, 3.0, 4.0, 5.0, 9.0)] == [4, 4, 6, 6, 6]
    pressure = Pressure(waited_s=0.0, busy=0)
    assert [agents(now) for now in (10.0, 69.9, 71.0)] == [6, 6, 5]
    # A rule outside of which the pool is, is heeded at once.
    pools.set_rule(host, "a", Autoscale(1, 2, 2.0))
    assert agents(72.0) == 2
    pools.scale(host, "a", 5)
    assert agents(73.0) == 5
    pools.scale(host, "a", None)
    assert agents(74.0) == 3
    [shown] = pools.shown(host)
    assert (shown["autoscale"], shown["set_autoscale"], shown["scaled_replicas"]) == (None,) * 3
