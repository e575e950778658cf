"""When a process that ended is started again, and when the supervisor gives up. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 30.0
#: A life of this length that got ready forgives everything before it.
STABLE_S = 30.0
#: Failures in a row to get ready at all: the agent itself is broken.
MAX_FAILED_STARTS = 5
#: A program begins through the API. Its starts must have failed for as long as a web server may
#: need to come back, too, before they are its own fault.
API_PATIENCE_S = 120.0
#: Short lives in a row of an agent that did get ready. More patient, because one task that
#: kills its agents must use up its own losses before it can take them all away.
MAX_SHORT_LIVES = 20
#: Exit code of a process that knows that another try would fail alike (sysexits EX_CONFIG).
HOPELESS = 78


@dataclass(frozen=True)
class Life:
    """How a process lived and died; `code` is negative for a signal."""

    lived_s: float
    was_ready: bool
    code: int
    needs_api: bool = False
    """It gets ready through the API, which may be away."""


@dataclass(frozen=True)
class History:
    """What is remembered of earlier lives in a row that ended too soon or never got ready."""

    short_lives: int = 0
    failed_starts: int = 0
    failing_s: float = 0.0
    """For how long its starts have failed, with the delays between them."""


@dataclass(frozen=True)
class Verdict:
    """What follows from an exit: the next start after `delay_s`, or None: give up."""

    history: History
    delay_s: float | None


def judge(history: History, life: Life) -> Verdict:
    """Decide after a crash. The delay doubles from 0.1 s to 30 s with each short life."""
    if life.code == HOPELESS:
        return Verdict(history, None)
    if life.was_ready and life.lived_s >= STABLE_S:
        return Verdict(History(), FIRST_DELAY_S)
    now = _longer(history, life)
    if _is_enough(now, life):
        return Verdict(now, None)
    delay_s = min(FIRST_DELAY_S * 2 ** min(now.short_lives - 1, 16), MAX_DELAY_S)
    if now.failed_starts:
        now = replace(now, failing_s=now.failing_s + delay_s)
    return Verdict(now, delay_s)


def _longer(history: History, life: Life) -> History:
    if life.was_ready:
        return History(history.short_lives + 1)
    return History(
        history.short_lives + 1, history.failed_starts + 1, history.failing_s + life.lived_s
    )


def _is_enough(history: History, life: Life) -> bool:
    patience_s = API_PATIENCE_S if life.needs_api else 0.0
    has_failed = history.failed_starts >= MAX_FAILED_STARTS and history.failing_s >= patience_s
    return has_failed or history.short_lives >= MAX_SHORT_LIVES
