"""When a process that ended is started again, and when the supervisor gives up. Pure."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 30.0
#: A life of this length forgives everything before it.
STABLE_S = 30.0
#: Failures in a row to get ready at all: the agent itself is broken.
MAX_FAILED_STARTS = 5
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


@dataclass(frozen=True)
class History:
    """What is remembered of earlier lives in a row that ended too soon."""

    short_lives: int = 0
    failed_starts: int = 0


@dataclass(frozen=True)
class Verdict:
    """What follows from an exit: the next start after `delay_s`, or None: give up."""

    history: History
    delay_s: float | None


def judge(history: History, life: Life) -> Verdict:
    """Decide after a crash. The delay doubles from 0.1 s to 30 s with each short life."""
    if life.code == HOPELESS:
        return Verdict(history, None)
    if life.lived_s >= STABLE_S:
        return Verdict(History(), FIRST_DELAY_S)
    now = History(
        short_lives=history.short_lives + 1,
        failed_starts=0 if life.was_ready else history.failed_starts + 1,
    )
    if now.failed_starts >= MAX_FAILED_STARTS or now.short_lives >= MAX_SHORT_LIVES:
        return Verdict(now, None)
    delay_s = FIRST_DELAY_S * 2 ** min(now.short_lives - 1, 16)
    return Verdict(now, min(delay_s, MAX_DELAY_S))
