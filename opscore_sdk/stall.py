"""Notices that a function keeps an event loop from running, so that its agent cannot beat."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from types import TracebackType

log = logging.getLogger("opscore_sdk")


class StallWatch:
    """Watches the running event loop from a thread while the block lasts.

    When the loop does nothing for `patience_s` seconds, a warning names the line that holds it.
    """

    def __init__(self, name: str, patience_s: float) -> None:
        self._name, self._patience_s = name, patience_s
        self._loop = asyncio.get_running_loop()
        self._watched = threading.get_ident()
        self._over = threading.Event()

    def __enter__(self) -> StallWatch:
        threading.Thread(target=self._watch, daemon=True, name="opscore-stall").start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(self._patience_s / 2):
            ran = threading.Event()
            try:
                self._loop.call_soon_threadsafe(ran.set)
            except RuntimeError:
                # The loop is closed.
                return
            if not ran.wait(self._patience_s) and not self._over.is_set():
                self._warn()
                while not (ran.wait(0.1) or self._over.is_set()):
                    pass

    def _warn(self) -> None:
        log.warning(
            "%s has not beaten for %g s: an async function works without awaiting anything (%s). "
            "Make it a plain `def`, or its session will be lost.",
            self._name,
            self._patience_s,
            self._place(),
        )

    def _place(self) -> str:
        frame = sys._current_frames().get(self._watched)  # noqa: SLF001 - the documented way
        if frame is None:
            return "unknown"
        last = traceback.extract_stack(frame)[-1]
        return f"{last.filename}:{last.lineno}"
