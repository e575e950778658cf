"""How a process ended, in words."""

from __future__ import annotations

import signal


def describe(code: int) -> str:
    """Say an exit code as `subprocess` gives it: `exit code 1`, `SIGKILL`, `signal 36`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        # Most real-time signals have no name.
        return f"signal {-code}"
