"""Desired against actual state of one agent: what its supervisor does next. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Step = Literal["spawn", "drain", "kill", "stopped", "rest"]


@dataclass(frozen=True)
class Want:
    """What the database asks for."""

    running: bool
    generation: int
    live_session: bool = True
    """Whether the session of the present process is still open."""
    condemned: str = ""
    """Why the present process must be killed at once; empty: it need not."""


@dataclass(frozen=True)
class Have:
    """The present process."""

    generation: int
    draining: bool = False


@dataclass(frozen=True)
class Pause:
    """Why an agent without a process is not started now."""

    until: float = 0.0
    """Monotonic seconds of the next start after a crash."""
    gave_up_on: int | None = None
    """The generation that crashed too often; a higher one is a new order."""


def decide(want: Want, have: Have | None, pause: Pause, now: float) -> tuple[Step, str]:
    """Return the next step and its reason."""
    return _without_process(want, pause, now) if have is None else _with_process(want, have)


def _with_process(want: Want, have: Have) -> tuple[Step, str]:
    doom = want.condemned or ("" if want.live_session else "its session was ended")
    if doom:
        return "kill", doom
    if have.draining:
        return "rest", ""
    if not want.running:
        return "drain", "retired"
    if want.generation != have.generation:
        return "drain", "restart requested"
    return "rest", ""


def _without_process(want: Want, pause: Pause, now: float) -> tuple[Step, str]:
    if not want.running:
        return "stopped", "retired"
    gave_up = pause.gave_up_on is not None and want.generation <= pause.gave_up_on
    if gave_up or now < pause.until:
        return "rest", ""
    return "spawn", ""
