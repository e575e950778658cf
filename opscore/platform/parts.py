"""One long-lived process of the platform: started, watched, started again when it dies."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from opscore.config import ROOT
from opscore.embedded import children
from opscore.exits import describe

_FIRST_DELAY_S = 0.5
_MAX_DELAY_S = 30.0
# A process that lived this long was well: its next end starts a new series of delays.
_WELL_AFTER_S = 60.0


class Part:
    """A process of the platform and its log; `keep_running` is called again and again."""

    def __init__(
        self, name: str, command: Sequence[str], log_dir: Path, *, grace_s: float = 10.0
    ) -> None:
        self.name = name
        self.command = command
        self.log = log_dir / f"{name}.log"
        self._grace_s = grace_s
        self._env: Mapping[str, str] = {}
        self._child: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._delay_s = _FIRST_DELAY_S
        self._restart_at: float | None = None

    @property
    def pid(self) -> int:
        """The process id; 0 while it does not run."""
        return self._child.pid if self._child else 0

    def start(self, env: Mapping[str, str]) -> None:
        """Start the process; it ends with this one, in whatever way this one ends."""
        self._env = env
        self._child = children.start(
            self.command, log=self.log, cwd=ROOT, death_signal=signal.SIGTERM, env=env
        )
        self._started_at = time.monotonic()
        self._restart_at = None

    def ended(self) -> str:
        """Say how the process ended; '' while it runs."""
        if self._child is None or self._child.poll() is None:
            return ""
        return describe(self._child.returncode)

    def keep_running(self) -> str:
        """Start the process again when it ended and its delay is over.

        Returns a sentence when the end was just noticed, else ''.
        """
        now = time.monotonic()
        if self._restart_at is not None:
            if now >= self._restart_at:
                self.start(self._env)
            return ""
        if self._child is None or not (end := self.ended()):
            return ""
        # Whatever it started itself would hold ports and files of its successor.
        children.kill_session(self._child)
        if now - self._started_at > _WELL_AFTER_S:
            self._delay_s = _FIRST_DELAY_S
        delay_s, self._delay_s = self._delay_s, min(self._delay_s * 2, _MAX_DELAY_S)
        self._restart_at = now + delay_s
        self._child = None
        return f"{self.name} ended with {end}; starting it again in {delay_s:g} s ({self.log})"

    def stop(self) -> None:
        """Stop the process in order: SIGTERM, then SIGKILL after its grace."""
        if self._child:
            children.stop(self._child, signal.SIGTERM, grace_s=self._grace_s)
        self._child = self._restart_at = None
