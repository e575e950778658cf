"""A task that may run now, as the engine's statements return it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from agents import queues


@dataclass(frozen=True, slots=True)
class Ready:
    """What dispatch must know of a queued task."""

    id: UUID
    run_id: UUID
    number: int
    attempt: int
    queue: str
    capability: str
    priority: int
    uncarried: bool
    in_degree: int
    successors: tuple[int, ...]
    wishes: bool = False
    """Whether it says which of the able agents it would have."""

    @property
    def word(self) -> str:
        """What announces it to agents that poll."""
        return self.queue if queues.is_own(self.queue) else self.capability

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Ready:
        """Read a row of a statement or of its JSON."""
        return cls(
            UUID(str(row["id"])),
            UUID(str(row["run_id"])),
            row["number"],
            row["attempt"],
            row["queue"],
            row["capability"],
            row["priority"],
            row["uncarried"],
            row["in_degree"],
            tuple(row["successors"]),
            row["wishes"],
        )
