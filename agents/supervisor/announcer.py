"""A thread for what may wait on the broker, so that the controller's loop never does."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable

from agents import health
from agents.models import Host
from agents.signals import fallback_tick
from opscore.database import release
from opscore.logs import get_logger

log = get_logger(__name__)
#: Mean time between fallback ticks.
TICK_S = 5.0


class Announcer:
    """Runs announcements in order; between them, ticks the fallback of beat's jobs."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, announcement: Callable[[], None]) -> None:
        """Have it called soon. What it raises is logged; the reconciler makes it good."""
        self._work.put(announcement)

    def stop(self, timeout_s: float = 5.0) -> None:
        """Finish what was put, within the time."""
        self._work.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        tick_at = _next_tick()
        while True:
            if time.monotonic() >= tick_at:
                _do(_tick)
                tick_at = _next_tick()
            try:
                work = self._work.get(timeout=max(0.0, tick_at - time.monotonic()))
            except queue.Empty:
                continue
            if work is None:
                return
            _do(work)


def _next_tick() -> float:
    # Jitter: the supervisors of many hosts must not tick in step.
    return time.monotonic() + TICK_S * random.uniform(0.8, 1.2)  # noqa: S311


def _do(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception as error:  # noqa: BLE001 - one lost announcement must not stop the next
        log.warning("supervisor.announcement_failed", error=str(error).strip())
    release()


def _tick() -> None:
    health.check()
    health.finish_drains()
    fallback_tick.send(sender=Host)
