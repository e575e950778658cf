"""The controller's side of the database: what it reads and writes in one go."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from agents import news, sessions, transitions
from agents.models import Agent, AgentSession
from agents.registry import NAME
from agents.specs import RESERVED, Spec
from agents.states import SUPERVISED
from opscore.database import query
from opscore.errors import ConflictError
from opscore.models import Project
from opscore.schedule import PLATFORM_QUEUE

#: First half of the advisory lock "supervisor of this host"; any constant does.
_LOCK_CLASS = 0x0B5C


@dataclass(frozen=True)
class Wanted:
    """An agent row of this host, as its controller needs it."""

    id: UUID
    name: str
    project_id: int
    project: str
    """Slug."""
    spec: str
    capabilities: list[str]
    labels: list[str]
    running: bool
    paused: bool
    generation: int
    status: str
    live_session: UUID | None
    condemned: str

    @property
    def is_platform(self) -> bool:
        """Whether it serves the platform's own jobs."""
        return self.spec == RESERVED


def listen() -> None:
    """Have this connection hear `agents.news`."""
    with connection.cursor() as cursor:
        cursor.execute(f"LISTEN {news.CHANNEL}")


def lock_host(host: str) -> bool:
    """Take the right to supervise this host for as long as this connection lives."""
    rows = query(
        "SELECT pg_try_advisory_lock(%(class)s::int, hashtext(%(host)s::text)) AS mine",
        {"class": _LOCK_CLASS, "host": host},
    )
    return bool(rows[0]["mine"])


def default_project() -> Project:
    """Return the project that the host's own agents belong to."""
    return Project.objects.get_or_create(slug="default")[0]


def show_host(project: Project, host: str, specs: Mapping[str, Spec], pid: int | None) -> None:
    """Write that this host lives and what it offers; `pid` None: its supervisor has ended."""
    query(
        """INSERT INTO agents_host (project_id, name, specs, pid, seen_at)
           VALUES (%(project)s, %(name)s, %(specs)s::jsonb, %(pid)s::int, now())
           ON CONFLICT (project_id, name) DO UPDATE
           SET specs = excluded.specs, pid = excluded.pid, seen_at = now()""",
        {
            "project": project.pk,
            "name": host,
            "specs": json.dumps({name: spec.offered() for name, spec in specs.items()}),
            "pid": pid,
        },
    )


def take_over(host: str, reason: str) -> list[UUID]:
    """End the sessions that an earlier supervisor of this host left; return them."""
    open_sessions = AgentSession.objects.filter(
        host=host, ended_at=None, agent__kind__in=SUPERVISED, agent__host=host
    )
    ids = list(open_sessions.values_list("id", flat=True))
    return sessions.close(ids, reason)


def enlist(project: Project, host: str, specs: Mapping[str, Spec]) -> None:
    """Make the agent rows that the host's file and the platform ask for; retire the others."""
    wanted = {(RESERVED, 1): Spec(RESERVED, "worker")}
    for spec in specs.values():
        wanted |= {(spec.name, number): spec for number in range(1, spec.replicas + 1)}
    with transaction.atomic():
        for (_, number), spec in wanted.items():
            _enlist_one(project, host, spec, number)
        started_by_file = Agent.objects.filter(host=host, replica__isnull=False)
        for agent in started_by_file:
            if (agent.spec, agent.replica) not in wanted:
                # Without its number the row is free for the file to take up again.
                Agent.objects.filter(pk=agent.pk).update(desired="stopped", replica=None)
                transitions.note([agent.pk], "agent.retired", reason="not in the agents file")


def _enlist_one(project: Project, host: str, spec: Spec, number: int) -> None:
    fields: dict[str, Any] = {
        "kind": spec.kind,
        "spec": spec.name,
        "host": host,
        "capabilities": list(spec.capabilities),
        "labels": list(spec.labels),
        "replica": number,
    }
    mine = Agent.objects.filter(project=project, host=host, spec=spec.name, replica=number)
    if mine.exists():
        # Its desired state stays what an operator made it.
        mine.update(**fields)
        return
    name = f"{spec.name}-{number}"
    for candidate in (name, f"{name}@{host}"):
        agent = Agent.objects.filter(project=project, name=candidate).first()
        if agent is None:
            if not NAME.fullmatch(candidate):
                break
            agent, made = Agent.objects.get_or_create(
                project=project, name=candidate, defaults=fields
            )
            if made:
                transitions.note([agent.pk], "agent.registered", reason="the host's agents file")
                return
            # Another host took the name in this moment.
        if agent.host == host and agent.replica is None and agent.spec in {"", spec.name}:
            Agent.objects.filter(pk=agent.pk).update(desired="running", **fields)
            return
    raise ConflictError(
        f"The names {name} and {name}@{host} belong to other agents; rename the spec {spec.name}."
    )


def wanted(host: str) -> dict[UUID, Wanted]:
    """Return every agent of this host that runs or should run."""
    rows = query(
        """SELECT a.id, a.name, a.project_id, p.slug AS project, a.spec, a.capabilities, a.labels,
                  a.desired = 'running' AS running, a.paused, a.generation, a.status,
                  s.id AS live_session, coalesce(s.condemned, '') AS condemned
           FROM agents_agent a
           JOIN opscore_project p ON p.id = a.project_id
           LEFT JOIN agents_agentsession s ON s.agent_id = a.id AND s.ended_at IS NULL
           WHERE a.host = %(host)s::text AND a.kind = ANY(%(kinds)s::text[])
             AND (a.desired = 'running' OR a.status <> 'terminated' OR s.id IS NOT NULL)
           ORDER BY a.name""",
        {"host": host, "kinds": list(SUPERVISED)},
    )
    return {row["id"]: Wanted(**row) for row in rows}


def start_session(agent_id: UUID, host: str, queues: list[str]) -> AgentSession:
    """Begin a session for a process that is about to be forked."""
    return sessions.start(Agent.objects.get(pk=agent_id), host=host, queues=queues)


def queues_of(agent: Wanted, serving: Iterable[str]) -> list[str]:
    """Return what the agent consumes: its queues, or the platform's own."""
    return [PLATFORM_QUEUE] if agent.is_platform else list(serving)


def widen(session_id: UUID, queues: list[str]) -> None:
    """Write that a running session consumes these queues now."""
    AgentSession.objects.filter(pk=session_id).update(queues=queues)
