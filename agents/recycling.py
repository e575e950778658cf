"""When an agent's process is replaced by a fresh one although nothing is wrong. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from opscore.sizes import shown_size


@dataclass(frozen=True)
class Recycle:
    """The rule of a spec; None: never for this reason."""

    max_tasks: int | None = None
    max_memory: int | None = None
    """Bytes."""
    max_age_s: float | None = None


@dataclass(frozen=True)
class Wear:
    """What one process has behind it."""

    tasks: int = 0
    memory: int = 0
    """Resident bytes, as last sampled."""
    age_s: float = 0.0


def is_worn_out(rule: Recycle, wear: Wear) -> bool:
    """Tell whether it has done all its tasks: such a process takes no more by itself."""
    return rule.max_tasks is not None and wear.tasks >= rule.max_tasks


def due(rule: Recycle, wear: Wear) -> str:
    """Return why the process should be replaced; '': it should not."""
    if is_worn_out(rule, wear):
        return f"recycled after {wear.tasks} tasks"
    if rule.max_memory is not None and wear.memory > rule.max_memory:
        return f"recycled at {shown_size(wear.memory)} of memory"
    if rule.max_age_s is not None and wear.age_s >= rule.max_age_s:
        return f"recycled after {wear.age_s:.0f} s"
    return ""
