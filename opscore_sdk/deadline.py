"""How long a run is waited for."""

from __future__ import annotations

import math
import time

from opscore_sdk.asking import Pause, Talk
from opscore_sdk.errors import WaitTimeoutError


class Deadline:
    """A time limit that begins now; None: none."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._at = math.inf if timeout_s is None else time.monotonic() + timeout_s

    @property
    def left_s(self) -> float:
        """Seconds that are left, never below 0."""
        return max(self._at - time.monotonic(), 0.0)

    def pause(self, seconds: float, run_id: str) -> Talk[None]:
        """Wait so long. Raises WaitTimeoutError where the limit would be over by then."""
        if time.monotonic() + seconds > self._at:
            raise WaitTimeoutError(
                f"The run {run_id} has not ended after {self._timeout_s:g} s; it goes on."
            )
        yield Pause(seconds)
