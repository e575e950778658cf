"""News from the floors below: a beat that is silent."""

from __future__ import annotations

from typing import Any

from django.dispatch import receiver

from agents.signals import fallback_tick


@receiver(fallback_tick)
def fire_schedules(**_: Any) -> None:
    """Start what is due although no beat ticks."""
    from workflows import firing  # noqa: PLC0415 - supervisors need no definitions in memory

    firing.tick()
