"""A worker that no supervisor watches asks itself whether it hears its queues."""

from __future__ import annotations

import threading
import time
from uuid import UUID

from agents import questions, runtime, transitions
from agents.hearing import Ear, Patience, verdict
from opscore.logs import get_logger

log = get_logger(__name__)


class SelfCheck:
    """Called with each beat; a deaf worker's agent is `unresponsive` until it hears again."""

    def __init__(self, agent_id: UUID, patience: Patience) -> None:
        self._agent_id = agent_id
        self._patience = patience
        self._ear = Ear(proven_at=time.monotonic())
        self._asking: threading.Thread | None = None
        self._is_deaf = False

    def step(self, *, paused: bool) -> None:
        """Ask when it is time to, and tell what has changed. Raises DatabaseError."""
        now = time.monotonic()
        self._ear.listen(runtime.pulse(), now)
        if paused or self._patience.still_s == 0:
            self._ear.excuse(now)
        if self._ear.is_due(self._patience, now) and not self._is_asking:
            # In a thread: the worker's loop must not wait for its broker.
            self._asking = threading.Thread(target=self._ask, name="self-check", daemon=True)
            self._asking.start()
        self._tell(is_deaf=self._ear.is_deaf(self._patience, now))

    @property
    def _is_asking(self) -> bool:
        return self._asking is not None and self._asking.is_alive()

    def _ask(self) -> None:
        try:
            questions.ask([self._agent_id])
        except Exception as error:  # noqa: BLE001 - whatever a broker's client raises
            log.warning("agent.not_asked", error=str(error))
            self._ear.excuse(time.monotonic())
        else:
            self._ear.asked(time.monotonic())

    def _tell(self, *, is_deaf: bool) -> None:
        if is_deaf == self._is_deaf:
            return
        if is_deaf:
            reason = verdict(self._patience)
            transitions.change([self._agent_id], "unresponsive", reason=reason)
        else:
            reason = "it hears its queues again"
            transitions.change(
                [self._agent_id], "active", reason=reason, only_from=("unresponsive",)
            )
        self._is_deaf = is_deaf


__all__ = ["SelfCheck"]
