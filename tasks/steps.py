"""Bounded steps, one after the other, within a budget of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from opscore.database import release
from opscore.logs import get_logger

log = get_logger(__name__)

#: Does one bounded batch; returns whether there may be more.
Step = Callable[[], bool]
#: One pass ends after this many seconds, so that ticks do not pile up.
BUDGET_S = 5.0


def run(steps: Sequence[Step]) -> None:
    """Repeat each step until nothing is due, all within BUDGET_S seconds.

    A step that breaks is logged and does not stop the others.
    """
    deadline = time.monotonic() + BUDGET_S
    for step in steps:
        try:
            while step() and time.monotonic() < deadline:
                pass
        except Exception:
            log.exception("step.failed", step=step.__name__)
            release()
