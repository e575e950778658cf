"""Kind `command`: one command line for each task, JSON in and JSON out."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, cast

from agents import programs
from agents.handlers import Context, HandlerError
from agents.limits import Limits
from agents.specs import Spec
from agents.supervisor import processes
from opscore.config import load_config
from opscore.documents import finite
from opscore.exits import describe

#: How often a running command looks whether its task was cancelled.
_LOOK_S = 0.5
_CLOSED_S = 0.005
_HAS_ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT
#: Between SIGTERM and SIGKILL of a command that must go.
_GRACE_S = 2.0
_CHUNK = 65536
_MAX_LINE = 4000
_LAST_LINES = 20


@dataclass(frozen=True)
class CommandLine:
    """A handler that runs `command`: inputs on stdin, result on stdout, stderr to the log."""

    command: tuple[str, ...]
    cwd: str
    env: dict[str, str]
    timeout_s: float | None
    max_output_bytes: int
    python: str = ""
    limits: Limits = field(default_factory=Limits)

    @classmethod
    def of(cls, spec: Spec) -> CommandLine:
        """Make the handler of a spec of kind `command`."""
        limit = load_config().max_result_bytes
        return cls(
            spec.command,
            spec.cwd,
            dict(spec.env),
            spec.timeout_s,
            limit,
            python=spec.python,
            limits=spec.limits,
        )

    def __call__(self, context: Context) -> Any:
        """Run the command for one task; HandlerError says how it failed."""
        run = _Run(self, context)
        try:
            code = run.wait()
        finally:
            run.close()
        if why := self.limits.explain(code, run.cpu_s, "\n".join(run.last)):
            message = f"The command was ended by a limit: {why}."
            raise HandlerError(message, type="limit")
        if code != 0:
            raise HandlerError(run.failure(code), type="exit_status")
        return _result(run.output)

    def environment(self, context: Context) -> dict[str, str]:
        """Return the command's whole environment; this Python's own programs come first."""
        task = {
            "OPSCORE_TASK_ID": str(context.task_id),
            "OPSCORE_RUN_ID": str(context.run_id),
            "OPSCORE_ATTEMPT": str(context.attempt),
            "OPSCORE_IDEMPOTENCY_KEY": context.idempotency_key,
        }
        return programs.environment(self.python, {**self.env, **task})


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _result(output: bytearray) -> Any:
    try:
        return json.loads(output, parse_constant=_refuse, parse_float=finite)
    except (ValueError, RecursionError) as error:
        shown = output[:200].decode(errors="replace")
        raise HandlerError(
            f"The command's output is not JSON ({error}). It begins: {shown!r}",
            type="invalid_output",
            retryable=False,
        ) from None


class _Run:
    """One running command and its three pipes."""

    def __init__(self, line: CommandLine, context: Context) -> None:
        self.line = line
        self.context = context
        self.output = bytearray()
        self.last: deque[str] = deque(maxlen=_LAST_LINES)
        self.cpu_s = 0.0
        """What the command used, once it has ended."""
        self._partial = b""
        self._input = memoryview(json.dumps(context.inputs).encode())
        self.process = _start(line, context)
        limits = [limit for limit in (line.timeout_s, context.timeout_s) if limit]
        self._deadline = time.monotonic() + min(limits) if limits else None
        self._limit_s = min(limits, default=0.0)
        self._selector = selectors.DefaultSelector()
        self._watch(self.process.stdin, selectors.EVENT_WRITE, self._write)
        self._watch(self.process.stdout, selectors.EVENT_READ, self._read_output)
        self._watch(self.process.stderr, selectors.EVENT_READ, self._read_errors)

    def wait(self) -> int:
        """Serve the pipes until the command has ended; HandlerError when it had to be killed."""
        while not self._ended():
            # Its pipes close a moment before it has ended.
            pause_s = _LOOK_S if self._selector.get_map() else _CLOSED_S
            for key, _ in self._selector.select(timeout=pause_s):
                key.data(key.fileobj)
            self._check()
        self._drain()
        self._check()
        self._end_group()
        return self.process.returncode

    def close(self) -> None:
        """Leave nothing behind: the command's whole process group ends here."""
        if self.process.returncode is None:
            self._stop()
            self._end_group()
        self._selector.close()
        for pipe in filter(None, (self.process.stdin, self.process.stdout, self.process.stderr)):
            with contextlib.suppress(OSError):
                pipe.close()
        if self._partial:
            self._log(self._partial)

    def failure(self, code: int) -> str:
        """Return what a person needs to know of an exit code other than 0."""
        lines = "\n".join(self.last)
        said = f"The command ended with {describe(code)}."
        return f"{said}\n{lines}" if lines else said

    def _ended(self) -> bool:
        # A grandchild may hold the pipes open for ever: the command's own end counts. It stays
        # a zombie, because a reaped leader's group number could be somebody else's by now.
        return os.waitid(os.P_PID, self.process.pid, _HAS_ENDED) is not None

    def _drain(self) -> None:
        for key in list(self._selector.get_map().values()):
            if key.events == selectors.EVENT_READ:
                key.data(key.fileobj)

    def _end_group(self) -> None:
        processes.kill_group(self.process.pid)
        before = _cpu_of_children()
        self.process.wait()
        self.cpu_s = _cpu_of_children() - before

    def _check(self) -> None:
        if self.context.cancelled():
            raise HandlerError("The task was cancelled.", type="cancelled", retryable=False)
        if self._deadline is not None and time.monotonic() > self._deadline:
            message = f"The command took longer than {self._limit_s:g} s."
            raise HandlerError(message, type="timeout")
        if len(self.output) > self.line.max_output_bytes:
            message = f"The command wrote more than {self.line.max_output_bytes} bytes to stdout."
            raise HandlerError(message, type="output_too_large", retryable=False)

    def _stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        give_up_at = time.monotonic() + _GRACE_S
        while not self._ended() and time.monotonic() < give_up_at:
            time.sleep(_CLOSED_S)

    def _watch(
        self, pipe: IO[bytes] | None, event: int, serve: Callable[[IO[bytes]], None]
    ) -> None:
        opened = cast("IO[bytes]", pipe)  # every pipe was asked for
        os.set_blocking(opened.fileno(), False)
        self._selector.register(opened, event, serve)

    def _write(self, pipe: IO[bytes]) -> None:
        try:
            written = os.write(pipe.fileno(), self._input[:_CHUNK])
        except BlockingIOError:
            return
        except OSError:  # it does not read its input: that is its own decision
            written = len(self._input)
        self._input = self._input[written:]
        if not self._input:
            self._forget(pipe)

    def _read_output(self, pipe: IO[bytes]) -> None:
        self.output += self._read(pipe)

    def _read_errors(self, pipe: IO[bytes]) -> None:
        *lines, self._partial = (self._partial + self._read(pipe)).split(b"\n")
        for line in lines:
            self._log(line)
        if len(self._partial) > _MAX_LINE:
            self._log(self._partial)
            self._partial = b""

    def _read(self, pipe: IO[bytes]) -> bytes:
        try:
            data = os.read(pipe.fileno(), _CHUNK)
        except BlockingIOError:
            return b""
        if not data:
            self._forget(pipe)
        return data

    def _forget(self, pipe: IO[bytes]) -> None:
        self._selector.unregister(pipe)
        pipe.close()

    def _log(self, line: bytes) -> None:
        text = line.decode(errors="replace").replace("\0", "").rstrip()[:_MAX_LINE]
        self.last.append(text)
        self.context.log(text, "stderr")


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _start(line: CommandLine, context: Context) -> subprocess.Popen[bytes]:
    program = programs.found(line.command[0], line.cwd)

    def bind() -> None:
        # Only the kernel can end the command when this agent is killed.
        processes.die_with_parent()
        line.limits.apply()

    try:
        return subprocess.Popen(
            [program, *line.command[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd=line.cwd,
            env=line.environment(context),
            process_group=0,
            preexec_fn=bind,  # noqa: PLW1509 - a few system calls
        )
    except (OSError, ValueError) as error:
        why = programs.why_not(error, program, line.cwd)
    raise HandlerError(
        f"The command cannot be started: {why}.", type="not_started", retryable=False
    )
