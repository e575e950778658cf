"""Which agent rows a host's file asks for: those of its pools and the platform's own agent."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any
from uuid import UUID

from django.db import transaction

from agents import transitions, workload
from agents.models import Agent
from agents.registry import NAME
from agents.specs import RESERVED, Spec
from opscore.models import Project


@dataclass
class _Plan:
    """What must change; rows that stay as they are stand nowhere here."""

    new: list[Agent] = field(default_factory=list)
    again: list[Agent] = field(default_factory=list)
    """Retired once, taken up again."""
    changed: list[Agent] = field(default_factory=list)
    """Their spec says something else now."""
    surplus: list[Agent] = field(default_factory=list)


def enlist(
    project: Project,
    host: str,
    specs: Mapping[str, Spec],
    sizes: Mapping[str, int] | None = None,
) -> bool:
    """Make the agent rows that the host's specs and the platform ask for; retire the others.

    `sizes` says how many there should be of a spec, where that is not what the file says. Of
    those that are too many, idle ones go first. A number is left out whose names belong to
    other agents. False: another host took a name in this moment; do it again.
    """
    wanted = {RESERVED: (Spec(RESERVED, "worker"), 1)}
    for spec in specs.values():
        wanted[spec.name] = (spec, (sizes or {}).get(spec.name, spec.replicas))
    with transaction.atomic():
        return _carry_out(_planned(project, host, wanted))


def surplus(pool: Sequence[Agent], size: int, busy: Collection[UUID]) -> list[Agent]:
    """Return who leaves a pool that has more than `size`: idle before busy, highest number first."""
    idle_first = sorted(pool, key=lambda agent: (agent.pk in busy, -(agent.replica or 0)))
    return idle_first[: max(0, len(pool) - size)]


def _planned(project: Project, host: str, wanted: Mapping[str, tuple[Spec, int]]) -> _Plan:
    rows = list(Agent.objects.filter(project=project, host=host).order_by("replica"))
    busy = {agent_id for agent_id, tasks in workload.running(rows).items() if tasks}
    pools: dict[str, list[Agent]] = {name: [] for name in wanted}
    for row in rows:
        if row.replica is not None:
            pools.setdefault(row.spec, []).append(row)
    plan, known = _Plan(), {row.pk for row in rows}
    for name, pool in pools.items():
        spec, size = wanted.get(name, (None, 0))
        leaving = surplus(pool, size, busy)
        plan.surplus += leaving
        if spec is None:
            continue
        kept = [agent for agent in pool if agent not in leaving]
        plan.changed += [agent for agent in kept if _adapt(agent, spec)]
        if size > len(kept):
            free = _free(project, host, spec, {agent.replica for agent in kept}, busy)
            for agent in islice(free, size - len(kept)):
                (plan.again if agent.pk in known else plan.new).append(agent)
    return plan


def _adapt(agent: Agent, spec: Spec) -> bool:
    """Give an agent what its spec says; True: that was something else."""
    said = _said(spec)
    differs = any(getattr(agent, name) != value for name, value in said.items())
    for name, value in said.items():
        setattr(agent, name, value)
    return differs


def _said(spec: Spec) -> dict[str, Any]:
    return {
        "kind": spec.kind,
        "spec": spec.name,
        "capabilities": list(spec.capabilities),
        "labels": list(spec.labels),
        "concurrency": spec.slots,
    }


def _free(
    project: Project, host: str, spec: Spec, taken: Collection[int | None], busy: Collection[UUID]
) -> Iterator[Agent]:
    """Yield agents of the lowest free numbers: new ones, or retired ones without a last task."""
    named = Agent.objects.filter(project=project, name__startswith=f"{spec.name}-")
    by_name = {agent.name: agent for agent in named}
    for number in count(1):
        names = () if number in taken else _names(spec, number, host)
        agent = _seat(by_name, names, Agent(project=project, host=host, spec=spec.name))
        if agent is not None and agent.pk not in busy:
            _adapt(agent, spec)
            agent.replica, agent.desired = number, "running"
            yield agent


def _seat(by_name: Mapping[str, Agent], names: Iterable[str], new: Agent) -> Agent | None:
    """Return the row of one number: a retired one of this host, else `new` under a free name."""
    for name in names:
        agent = by_name.get(name)
        if agent is None:
            new.name = name
            return new
        if _may_return(agent, new):
            return agent
    return None


def _names(spec: Spec, number: int, host: str) -> list[str]:
    name = f"{spec.name}-{number}"
    return [word for word in (name, f"{name}@{host}") if NAME.fullmatch(word)]


def _may_return(agent: Agent, new: Agent) -> bool:
    return agent.host == new.host and agent.replica is None and agent.spec in {"", new.spec}


def _carry_out(plan: _Plan) -> bool:
    known = [*plan.again, *plan.changed, *plan.surplus]
    # In the order in which everybody locks agents.
    list(Agent.objects.select_for_update().filter(pk__in=[a.pk for a in known]).order_by("pk"))
    said = [*_said(Spec("", ""))]
    if plan.changed:
        Agent.objects.bulk_update(plan.changed, said)
    if plan.again:
        # What an operator made of its desired state holds only while it has a number.
        Agent.objects.bulk_update(plan.again, [*said, "replica", "desired"])
    if plan.surplus:
        gone = [agent.pk for agent in plan.surplus]
        # Without its number the row is free for the file to take up again.
        Agent.objects.filter(pk__in=gone).update(desired="stopped", replica=None)
        transitions.note(gone, "agent.retired", reason="its pool is smaller now")
    return _create(plan.new)


def _create(new: Sequence[Agent]) -> bool:
    if not new:
        return True
    Agent.objects.bulk_create(new, ignore_conflicts=True)
    made = Agent.objects.filter(pk__in=[agent.pk for agent in new]).values_list("pk", flat=True)
    transitions.note(made, "agent.registered", reason="the host's agents file")
    return len(made) == len(new)
