"""Verdicts for many who ask: one walk along the chain at a time, and none again too soon."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from threading import Lock

from opscore.audit import chain
from opscore.database import database_now
from opscore.errors import UnavailableError

#: How long a verdict is good for, and how much longer than its walk took: so the walks of a
#: process take at most a twentieth of its time, however long the log is.
_GOOD_S = 60.0
_TIMES = 20


@dataclass(frozen=True)
class Told:
    """A verdict and its time."""

    verdict: chain.Verdict
    at: datetime
    good_until: float


_lock = Lock()
_last: list[Told] = []


def latest() -> Told:
    """Return the verdict of a minute ago, or follow the chain. Raises UnavailableError."""
    if _last and time.monotonic() < _last[0].good_until:
        return _last[0]
    if not _lock.acquire(blocking=False):
        raise UnavailableError("The chain is being followed; ask again in a moment.")
    try:
        began, at = time.monotonic(), database_now()
        verdict = chain.verify()
        took = time.monotonic() - began
        _last[:] = [Told(verdict, at, began + max(_GOOD_S, took * _TIMES))]
        return _last[0]
    finally:
        _lock.release()


def forget() -> None:
    """Empty this process's memory (tests change the chain)."""
    _last.clear()
