from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest

from agents.commands import CommandLine
from agents.handlers import Context, HandlerError
from agents.limits import Limits
from agents.specs import Spec
from tests.conftest import WaitUntil

TASK = UUID("01890000-0000-7000-8000-000000000001")
RUN = UUID("01890000-0000-7000-8000-000000000002")


class Outcome:
    """Runs shell lines as tasks and keeps what they logged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logged: list[tuple[str, str]] = []

    def run(
        self,
        *command: str,
        inputs: dict[str, Any] | None = None,
        cancelled: Callable[[], bool] = lambda: False,
        task_timeout_s: float | None = None,
        **spec: Any,
    ) -> Any:
        limit = spec.pop("limit", 1_000_000)
        line = CommandLine(
            command=command,
            cwd=str(self.folder),
            env=spec.pop("env", {}),
            timeout_s=spec.pop("timeout_s", None),
            max_output_bytes=limit,
            limits=spec.pop("limits", Limits()),
        )
        context = Context(
            task_id=TASK,
            run_id=RUN,
            key="step",
            capability="x",
            attempt=2,
            inputs=inputs or {},
            timeout_s=task_timeout_s,
            write_log=lambda text, stream: self.logged.append((stream, text)),
            ask_cancelled=cancelled,
        )
        return line(context)

    def shell(self, text: str, **options: Any) -> Any:
        return self.run("sh", "-c", text, **options)

    def failure(self, text: str, **options: Any) -> HandlerError:
        with pytest.raises(HandlerError) as caught:
            self.shell(text, **options)
        return caught.value


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    return Outcome(tmp_path)


def test_inputs_go_in_and_the_result_comes_out(outcome: Outcome) -> None:
    inputs = {"text": "grüße", "many": list(range(50_000))}
    assert outcome.run("cat", inputs=inputs) == inputs


def test_spec_of_the_file_becomes_a_handler(tmp_path: Path) -> None:
    spec = Spec("a", "command", ("x",), command=("cat",), cwd=str(tmp_path), timeout_s=3)
    assert (CommandLine.of(spec).command, CommandLine.of(spec).timeout_s) == (("cat",), 3)


def test_command_that_ignores_its_input_is_fine(outcome: Outcome) -> None:
    assert outcome.shell("echo 1", inputs={"big": "x" * 1_000_000}) == 1


def test_stderr_lines_reach_the_log_as_they_come(outcome: Outcome) -> None:
    seen: list[int] = []
    line = "echo one >&2; while [ ! -e go ]; do sleep 0.01; done; printf 'two' >&2; echo null"

    def look() -> bool:
        seen.append(len(outcome.logged))
        (outcome.folder / "go").touch()
        return False

    assert outcome.shell(line, cancelled=look) is None
    assert outcome.logged == [("stderr", "one"), ("stderr", "two")]
    assert 1 in seen


def test_exit_code_fails_the_attempt_with_the_last_lines(outcome: Outcome) -> None:
    error = outcome.failure("for i in $(seq 30); do echo line $i >&2; done; exit 3")
    assert (error.type, error.retryable) == ("exit_status", True)
    assert str(error).startswith("The command ended with exit code 3.\nline 11\n")
    assert str(error).endswith("line 30")


def test_death_by_signal_is_named(outcome: Outcome) -> None:
    assert str(outcome.failure("kill -9 $$")) == "The command ended with SIGKILL."
    assert str(outcome.failure("kill -36 $$")) == "The command ended with signal 36."


@pytest.mark.parametrize("output", ["", "hello", "{", "1 2", "NaN", "1e999", "[" * 100_000])
def test_output_that_is_not_json_is_final(outcome: Outcome, output: str) -> None:
    (outcome.folder / "out").write_text(output)
    error = outcome.failure("cat out")
    assert (error.type, error.retryable) == ("invalid_output", False)
    assert "is not JSON" in str(error)


def test_output_above_the_limit_is_cut_off(outcome: Outcome) -> None:
    started = time.monotonic()
    error = outcome.failure("yes", limit=100_000)
    assert (error.type, error.retryable) == ("output_too_large", False)
    assert "more than 100000 bytes" in str(error)
    assert time.monotonic() - started < 10


def test_timeout_kills_the_command(outcome: Outcome) -> None:
    error = outcome.failure("echo $$ > pid; sleep 60", timeout_s=0.3)
    assert (error.type, error.retryable) == ("timeout", True)
    assert str(error) == "The command took longer than 0.3 s."
    assert not psutil.pid_exists(int((outcome.folder / "pid").read_text()))


def test_shorter_of_two_timeouts_counts(outcome: Outcome) -> None:
    assert "0.2 s" in str(outcome.failure("sleep 60", timeout_s=60, task_timeout_s=0.2))


def test_cancelled_task_ends_the_command(outcome: Outcome) -> None:
    pid = outcome.folder / "pid"
    error = outcome.failure(
        "echo $$ > pid; sleep 60", cancelled=lambda: pid.exists() and pid.read_text() != ""
    )
    assert (error.type, error.retryable) == ("cancelled", False)
    assert not psutil.pid_exists(int(pid.read_text()))


def test_command_may_clean_up_when_it_is_stopped(outcome: Outcome) -> None:
    outcome.failure("trap 'touch cleaned; exit' TERM; sleep 60 & wait", timeout_s=0.3)
    assert (outcome.folder / "cleaned").exists()


def test_command_that_ignores_sigterm_is_killed(outcome: Outcome) -> None:
    error = outcome.failure("trap '' TERM; while true; do sleep 0.1; done", timeout_s=0.2)
    assert error.type == "timeout"


def test_what_it_left_in_the_background_ends_with_it(
    outcome: Outcome, wait_until: WaitUntil
) -> None:
    result = outcome.shell("sleep 60 >/dev/null 2>&1 & echo $!")
    wait_until(lambda: not _runs(result))


def test_background_program_that_holds_the_pipes_does_not_hold_the_result(
    outcome: Outcome, wait_until: WaitUntil
) -> None:
    result = outcome.shell("sleep 60 & echo $!")
    wait_until(lambda: not _runs(result))


def _runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("line", "limits", "expected"),
    [
        (
            "exec python3 -c 'x = bytearray(2**30)'",
            Limits(memory=2**28),
            "it ran into its memory limit of 256 MiB (limits.memory)",
        ),
        (
            "while :; do :; done",
            Limits(cpu_time_s=1),
            "it used up its CPU time, 1 s (limits.cpu_time)",
        ),
        (
            "exec python3 -c 'import os; [os.pipe() for _ in range(99)]'",
            Limits(open_files=32),
            "it ran into its limit of 32 open files (limits.open_files)",
        ),
    ],
)
def test_limit_that_ends_a_command_is_named(
    outcome: Outcome, line: str, limits: Limits, expected: str
) -> None:
    error = outcome.failure(line, limits=limits)
    assert (error.type, error.retryable) == ("limit", True)
    assert str(error) == f"The command was ended by a limit: {expected}."


def test_script_whose_interpreter_is_missing_is_said(outcome: Outcome) -> None:
    script = outcome.folder / "mine.sh"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(HandlerError, match="the interpreter in the first line of"):
        outcome.run("mine.sh")


def test_environment_is_small_and_names_the_task(
    outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPSCORE_DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("OPSCORE_API_URL", "http://of-the-supervisor")
    text = outcome.shell("env > env.txt; echo 0", env={"A": "b", "OPSCORE_API_KEY": "own"})
    assert text == 0
    seen = dict(
        line.split("=", 1) for line in (outcome.folder / "env.txt").read_text().splitlines()
    )
    assert seen["A"] == "b"
    assert seen["OPSCORE_TASK_ID"] == seen["OPSCORE_IDEMPOTENCY_KEY"] == str(TASK)
    assert (seen["OPSCORE_RUN_ID"], seen["OPSCORE_ATTEMPT"]) == (str(RUN), "2")
    assert not {"OPSCORE_DATABASE_URL", "OPSCORE_API_URL"} & set(seen)
    # As docs/shared-context.md says: only its spec gives a command a key.
    assert seen["OPSCORE_API_KEY"] == "own"


def test_program_beside_the_file_is_found(outcome: Outcome) -> None:
    script = outcome.folder / "mine.sh"
    script.write_text("#!/bin/sh\necho '\"mine\"'\n")
    script.chmod(0o755)
    assert outcome.run("mine.sh") == "mine"


@pytest.mark.parametrize(
    ("mode", "hint"), [(None, "there is no program"), (0o644, "is not executable; try: chmod +x")]
)
def test_program_that_cannot_start_is_final(outcome: Outcome, mode: int | None, hint: str) -> None:
    if mode is not None:
        (outcome.folder / "tool").write_text("#!/bin/sh\n")
        (outcome.folder / "tool").chmod(mode)
    with pytest.raises(HandlerError) as caught:
        outcome.run("tool")
    assert (caught.value.type, caught.value.retryable) == ("not_started", False)
    assert hint in str(caught.value)


def test_command_dies_with_its_agent(outcome: Outcome, wait_until: WaitUntil) -> None:
    pid = outcome.folder / "pid"
    agent = os.fork()
    if agent == 0:
        try:
            outcome.shell("echo $$ > pid; exec sleep 60")
        finally:
            os._exit(0)
    command = int(wait_until(lambda: pid.exists() and pid.read_text().strip()) or 0)
    os.kill(agent, signal.SIGKILL)
    os.waitpid(agent, 0)
    wait_until(lambda: not _runs(command))


def test_long_lines_and_strange_bytes_are_logged_cut(outcome: Outcome) -> None:
    outcome.shell("head -c 9000 /dev/zero | tr '\\0' x >&2; printf '\\377\\n' >&2; echo 0")
    assert all(len(text) <= 4000 for _, text in outcome.logged)
    assert json.dumps(outcome.logged)
