"""A platform in memory with a real address, and the executor that is tested against it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from opscore_sdk.testing import MemoryPlatform, Seen
from opscore_sdk.testing.records import SessionRecord, TaskRecord

T = TypeVar("T")

#: Short, so that a whole certificate takes half a minute: heartbeats are due every second.
SESSION_TTL_S = 3.0
HEARTBEAT_S = SESSION_TTL_S / 3
NAME = "conformance"


class Broken(Exception):  # noqa: N818 - a rule that is broken, not an error of this program
    """The executor breaks a rule; the message says how."""

    output = ""
    """The end of what it wrote."""


@dataclass(frozen=True)
class Wish:
    """What the executor is given to do."""

    command: Sequence[str]
    capability: str = ""
    """Empty: the first that it offers."""
    inputs: Mapping[str, Any] = field(default_factory=lambda: {"text": "hello"})
    seconds_input: str = "seconds"
    """The input that says how long a task takes."""


class Rig:
    """A running executor and what can be seen of it."""

    def __init__(self, wish: Wish, platform: MemoryPlatform, url: str, output: Any) -> None:
        self.platform = platform
        self._wish = wish
        own = {"OPSCORE_API_URL": url, "OPSCORE_API_KEY": platform.key, "OPSCORE_AGENT_NAME": NAME}
        try:
            self.process = subprocess.Popen(
                list(wish.command),
                env={**os.environ, **own},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise Broken(f"{wish.command[0]} cannot be started: {error.strerror}") from None

    def until(self, condition: Callable[[], T | None], timeout_s: float, otherwise: str) -> T:
        """Wait for a condition and return its answer. Broken: it took longer, or the end came."""
        give_up_at = time.monotonic() + timeout_s
        while not (answer := condition()):
            if self.process.poll() is not None:
                raise Broken(f"{otherwise}: it ended with status {self.process.returncode}")
            if time.monotonic() > give_up_at:
                raise Broken(f"{otherwise} within {timeout_s:g} s")
            time.sleep(0.02)
        return answer

    def submit(self, seconds: float = 0, inputs: Mapping[str, Any] | None = None) -> TaskRecord:
        """Give it a task that takes so long; `inputs` replace the usual ones."""
        given = {**self._wish.inputs} if inputs is None else dict(inputs)
        if seconds:
            given[self._wish.seconds_input] = seconds
        with self.platform.client() as client:
            made = client.submit(self.capability, inputs=given)
        return self.platform.engine.tasks[made.id]

    def done(self, task: TaskRecord, timeout_s: float) -> None:
        """Wait until a task is completed. Broken: it is not, or it failed."""
        what = f"the task was not completed (it is {task.status})"
        self.until(lambda: task.has_ended, timeout_s, what)
        if task.status != "completed":
            raise Broken(f"the task {task.status}: {task.error}")

    def started(self, task: TaskRecord) -> None:
        """Wait until the executor has claimed a task."""
        self.until(lambda: task.fence > 0, 8, "the task was not claimed")

    @property
    def capability(self) -> str:
        """What it is asked to do."""
        return self._wish.capability or next(
            (word for agent in self.platform.engine.agents.values() for word in agent.capabilities),
            "",
        )

    @property
    def seconds_input(self) -> str:
        """The input that says how long a task takes."""
        return self._wish.seconds_input

    @property
    def session(self) -> SessionRecord | None:
        """Its open session."""
        found = self.platform.engine.sessions.values()
        return next((session for session in found if session.ended_at is None), None)

    def seen(self, method: str, ending: str, since: float = 0.0) -> list[Seen]:
        """Return what it asked there, oldest first."""
        return [
            asked
            for asked in list(self.platform.seen)
            if asked.method == method and asked.path.endswith(ending) and asked.at >= since
        ]

    def beats(self, task: TaskRecord, since: float = 0.0) -> list[Seen]:
        """Return its heartbeats that list a task."""
        return [
            beat
            for beat in self.seen("POST", "/heartbeat", since)
            if beat.was_understood
            and any(row.get("id") == task.id for row in (beat.body or {}).get("tasks", ()))
        ]

    def terminate(self) -> None:
        """Ask it to stop."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it with everything that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def rig(wish: Wish) -> Iterator[Rig]:
    """Start a platform and the executor; both are gone after the block.

    What goes wrong in it leaves it as Broken, with what the executor wrote: whatever an executor
    does, there is a verdict.
    """
    platform = MemoryPlatform(session_ttl_s=SESSION_TTL_S)
    with platform.serve() as url, tempfile.TemporaryFile("w+", errors="replace") as output:
        running = Rig(wish, platform, url, output)
        try:
            yield running
        except Exception as error:  # noqa: BLE001 - an executor may make anything of a trial
            broken = error if isinstance(error, Broken) else Broken(_no_end(error))
            output.seek(0)
            broken.output = output.read()[-1000:]
            raise broken from None
        finally:
            running.kill()


def _no_end(error: Exception) -> str:
    return f"the trial came to no end: {type(error).__name__}: {error}"
