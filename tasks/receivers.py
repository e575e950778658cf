"""News from the agents floor: sessions that ended, agents that appeared, a beat that is silent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.dispatch import receiver

from agents import queues, sessions
from agents.models import Agent
from agents.signals import fallback_tick, session_ready, sessions_ended
from opscore.database import query
from tasks import backlog, reconcile
from tasks.dispatch import refill
from tasks.transitions import addressing, repairs


@receiver(sessions_ended)
def give_back(session_ids: Sequence[UUID], **_: Any) -> None:
    """Give back at once what the sessions held; a lost call is made good by the reconciler."""
    reconcile.give_back(session_ids)
    reconcile.free_addressed()


@receiver(session_ready)
def hint_waiting(agent: Agent, **_: Any) -> None:
    """Hint the tasks that waited for this agent, or for such an agent.

    Where others serve the queue already, its hints lie in the broker; sending them again for
    each agent of a fleet would multiply a backlog. But there is room for more of them now.
    """
    # This very agent is among those who serve now.
    sessions.served_slots(max_age_s=0)
    meant = query(addressing.WAITING_FOR, {"agent": agent.pk, "limit": reconcile.BATCH})
    names = set(queues.matching(agent.project, agent.capabilities, agent.labels))
    if waited := names - sessions.served_by_others(agent.pk):
        query(repairs.FORGET_HINTS, {"queues": sorted(waited), "run": None, "project": None})
    if meant or waited:
        reconcile.repeat_hints()
    refill(backlog.held_back(names))


@receiver(fallback_tick)
def repair(**_: Any) -> None:
    """Reconcile although no beat ticks."""
    reconcile.reconcile()
