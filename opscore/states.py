"""State machines as tables: the one form in which every status of the platform is ruled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """Allowed transitions: source status -> the statuses it may change to."""

    arrows: Mapping[str, frozenset[str]]

    @property
    def statuses(self) -> tuple[str, ...]:
        """Every status, in the table's order."""
        return tuple(self.arrows)

    @property
    def terminal(self) -> frozenset[str]:
        """Statuses that never change again."""
        return frozenset(name for name, targets in self.arrows.items() if not targets)

    def sources(self, target: str) -> tuple[str, ...]:
        """Return the statuses from which `target` can be reached in one step."""
        return tuple(name for name, targets in self.arrows.items() if target in targets)
