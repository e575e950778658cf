"""Handlers of five capabilities that do the same: nothing, for some milliseconds."""

from __future__ import annotations

import time

from agents.handlers import Context, handler

CAPABILITIES = tuple(f"part-{number}" for number in range(1, 6))


def wait(task: Context) -> None:
    """Take the milliseconds that the inputs say."""
    time.sleep(task.inputs["ms"] / 1000)


for _name in CAPABILITIES:
    handler(_name)(wait)
