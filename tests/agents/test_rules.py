"""The pure rules: limits, recycling, autoscale, sizes, and how specs say them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.autoscale import CALM_S, CALM_SHARE, SETTLE_S, Autoscale, Pressure, Size, decide
from agents.limits import Limits
from agents.recycling import Recycle, Wear, due
from agents.specs import Spec, parse
from opscore.errors import InvalidError
from opscore.sizes import MAX_BYTES, parse_size, shown_size

RULE = Autoscale(min=1, max=8, queue_wait_s=4.0)
PRESSURES = st.builds(Pressure, waited_s=st.floats(0, 20), busy=st.integers(0, 10))


@given(
    st.integers(0, 5),
    st.integers(0, 20),
    st.integers(0, 30),
    st.lists(st.tuples(st.floats(0.1, 30), PRESSURES), max_size=60),
)
def test_size_stays_inside_and_moves_only_for_a_reason(
    least: int, more: int, start: int, steps: list[tuple[float, Pressure]]
) -> None:
    rule = Autoscale(least, max(1, least + more), 4.0)
    size, now = decide(rule, Size(start), Pressure(2.0, 0), 0.0), 0.0
    grown_at = float("-inf")
    for pause_s, pressure in steps:
        now += pause_s
        before, size = size, decide(rule, size, pressure, now)
        assert rule.min <= size.agents <= rule.max
        if size.agents > before.agents:
            assert pressure.waited_s >= rule.queue_wait_s
            assert now - grown_at >= SETTLE_S
            grown_at = now
        if size.agents < before.agents:
            assert size.agents == before.agents - 1
            assert pressure.waited_s < rule.queue_wait_s * CALM_SHARE
            assert now - grown_at >= CALM_S
            assert pressure.busy < before.agents


@given(st.integers(1, 8), st.floats(4.0 * CALM_SHARE, 3.99), st.integers(0, 8))
def test_between_both_bounds_nothing_changes(agents: int, waited_s: float, busy: int) -> None:
    size = Size(agents)
    for now in range(300):
        size = decide(RULE, size, Pressure(waited_s, busy), float(now))
    assert size.agents == agents


def test_sustained_pressure_reaches_the_top_and_calm_the_bottom() -> None:
    size, grown = Size(1), []
    for now in range(20):
        size = decide(RULE, size, Pressure(9.0, size.agents), float(now))
        grown.append(size.agents)
    assert grown[:9:2] == [2, 3, 4, 6, 8]
    shrunk = []
    for now in range(20, 400):
        size = decide(RULE, size, Pressure(0.0, 0), float(now))
        shrunk.append(size.agents)
    assert size.agents == 1
    assert shrunk[int(CALM_S) - 1] == 8


def test_busy_pool_without_a_queue_keeps_its_size() -> None:
    size = Size(3)
    for now in range(300):
        size = decide(RULE, size, Pressure(0.0, 3), float(now))
    assert size.agents == 3


def test_recycling_names_what_is_worn() -> None:
    assert due(Recycle(), Wear(10**6, 10**12, 10**6)) == ""
    rule = Recycle(max_tasks=3, max_memory=2**20, max_age_s=60)
    assert due(rule, Wear(2, 2**20, 59)) == ""
    assert due(rule, Wear(3, 0, 0)) == "recycled after 3 tasks"
    assert due(rule, Wear(0, 3 * 2**20, 0)) == "recycled at 3 MiB of memory"
    assert due(rule, Wear(0, 0, 61)) == "recycled after 61 s"


def test_limits_bind_a_child_and_what_it_starts() -> None:
    code = "import resource as r; print(r.getrlimit(r.RLIMIT_NOFILE), r.getrlimit(r.RLIMIT_DATA))"
    limits = Limits(memory=2**30, cpu_time_s=5, open_files=64)
    done = subprocess.run(
        [sys.executable, "-c", code],
        preexec_fn=limits.apply,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == f"(64, 64) ({2**30}, {2**30})"


def test_explained_is_only_what_a_limit_can_have_done() -> None:
    limits = Limits(memory=2**20, cpu_time_s=10, open_files=64)
    assert limits.explain(0, 100, "MemoryError") == ""
    assert limits.explain(1, 0, "ValueError") == ""
    assert "64 open files" in limits.explain(1, 0, "OSError: [Errno 24] Too many open files")
    assert "1 MiB" in limits.explain(-signal.SIGABRT, 0, "std::bad_alloc")
    assert "CPU time, 10 s" in limits.explain(-signal.SIGXCPU, 9.9, "")
    assert "CPU time" in limits.explain(-signal.SIGKILL, 15, "")
    assert limits.explain(-signal.SIGKILL, 2, "") == ""
    assert Limits().explain(1, 99, "MemoryError Too many open files") == ""


@pytest.mark.parametrize(
    ("text", "size"),
    [("512MiB", 2**29), ("1.5 GiB", 3 * 2**29), ("1KiB", 1024), ("7B", 7), (4096, 4096)],
)
def test_sizes_are_read(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["512", "5MB", "", "-1MiB", True, None, [], 1.5, 0, -1, 2**60])
def test_bad_sizes_are_refused_in_a_sentence(text: object) -> None:
    with pytest.raises(ValueError, match="is not"):
        parse_size(text)


@given(st.integers(1, MAX_BYTES))
def test_every_size_can_be_shown(size: int) -> None:
    assert shown_size(size).partition(" ")[2] in {"B", "KiB", "MiB", "GiB", "TiB"}


def problems(text: str, base: Path) -> list[str]:
    with pytest.raises(InvalidError) as caught:
        parse(dedent(text), base=base)
    return [str(problem) for problem in caught.value.problems]


def test_spec_of_a_program_is_read_and_survives_the_wire(tmp_path: Path) -> None:
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").touch(mode=0o755)
    text = """
        agents:
          prog:
            kind: process
            command: [python, agent.py]
            python: venv
            capabilities: [a]
            concurrency: 4
            start_timeout: 1m
            limits: {memory: 512MiB, cpu_time: 10m, open_files: 1024}
            recycle: {max_tasks: 100, max_memory: 1GiB, max_age: 12h}
            autoscale: {min: 2, max: 5, queue_wait: 3s}
        """
    spec = parse(dedent(text), base=tmp_path)["prog"]
    assert spec == Spec(
        "prog",
        "process",
        ("a",),
        replicas=2,
        command=("python", "agent.py"),
        cwd=str(tmp_path),
        python=str(programs),
        concurrency=4,
        start_timeout_s=60,
        limits=Limits(2**29, 600, 1024),
        recycle=Recycle(100, 2**30, 43200),
        autoscale=Autoscale(2, 5, 3.0),
    )
    assert Spec.of_dict(spec.as_dict()) == spec
    assert spec.offered() == {
        "kind": "process",
        "capabilities": ["a"],
        "labels": [],
        "replicas": 2,
        "concurrency": 4,
        "autoscale": {"min": 2, "max": 5, "queue_wait_s": 3.0},
    }


def test_interpreter_stands_for_its_environment(tmp_path: Path) -> None:
    text = f"agents: {{a: {{kind: process, command: [x], capabilities: [x], python: {sys.executable}}}}}"
    assert parse(text, base=tmp_path)["a"].python == os.path.dirname(sys.executable)


def test_every_problem_of_the_rules_is_told_with_its_place(tmp_path: Path) -> None:
    found = problems(
        """\
        agents:
          a:
            kind: process
            command: [x]
            capabilities: [x]
            python: nowhere
            replicas: 2
            concurrency: 0
            start_timeout: 0
            limits:
              memory: 1KiB
              cpu_tim: 1s
            recycle: {}
            autoscale: {min: 3, max: 2, queue_wait: 1s}
          b:
            kind: worker
            handlers: a.b
            capabilities: [x]
            limits: {cpu_time: 1s}
            autoscale: {min: 1}
            python: 5
          c: {kind: command, command: [x], capabilities: [x], python: 5, recycle: {max_age: x}}
        """,
        tmp_path,
    )
    assert set(found) == {
        "line 14: agents.a.autoscale.min: min is above max (3 > 2)",
        "line 13: agents.a.recycle: a mapping is expected with one or more of: "
        "max_tasks, max_memory, max_age",
        f"line 6: agents.a.python: there is no Python at '{tmp_path}/nowhere': "
        "a virtual environment is expected",
        "line 11: agents.a.limits.memory: at least 16 MiB are needed to start a program",
        "line 12: agents.a.limits.cpu_tim: unknown key 'cpu_tim'; did you mean 'cpu_time'?",
        "line 8: agents.a.concurrency: a whole number from 1 to 1000 is expected, not 0",
        "line 9: agents.a.start_timeout: 0 is not above zero and at most 366 days",
        "line 7: agents.a.replicas: say either `replicas` or `autoscale`: the latter begins "
        "with its min",
        "line 21: agents.b.python: unknown key 'python'; known: kind, capabilities, labels, "
        "replicas, max_replicas, autoscale, recycle, handlers, limits",
        "line 20: agents.b.autoscale: missing: max, queue_wait",
        "line 19: agents.b.limits.cpu_time: unknown key 'cpu_time'; known: memory, open_files",
        "line 22: agents.c.recycle.max_age: 'x' is not a duration; write it as 90s, 2m, 1h30m "
        "or 500ms",
        "line 22: agents.c.python: a virtual environment or an interpreter is expected, not 5",
    }
