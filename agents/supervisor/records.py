"""The controller's side of the database: what it reads and writes in one go."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from django.db import connection

from agents import news, queues, sessions, usage
from agents.models import Agent, AgentSession
from agents.specs import RESERVED, Spec
from agents.states import SUPERVISED
from agents.supervisor import processes
from opscore import keys
from opscore.database import query
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
    kind: str
    capabilities: list[str]
    labels: list[str]
    running: bool
    paused: bool
    generation: int
    status: str
    live_session: UUID | None
    is_ready: bool
    """Its live session takes work."""
    claims: int
    """Tasks that its live session took over HTTP."""
    condemned: str

    @property
    def polls(self) -> bool:
        """Whether it is a program that speaks the executor protocol."""
        return self.kind == "process"

    @property
    def is_platform(self) -> bool:
        """Whether it serves the platform's own jobs."""
        return self.spec == RESERVED


def listen(host: str) -> None:
    """Have this connection hear `agents.news` of all and of this host."""
    with connection.cursor() as cursor:
        for channel in (news.CHANNEL, news.channel_of(host)):
            cursor.execute(f"LISTEN {channel}")


def lock_host(host: str) -> bool:
    """Take the right to supervise this host for as long as this connection lives."""
    rows = query(
        "SELECT pg_try_advisory_lock(%(class)s::int, hashtext(%(host)s::text)) AS mine",
        {"class": _LOCK_CLASS, "host": host},
    )
    return bool(rows[0]["mine"])


def backend_pid() -> int:
    """Return the number by which the database knows this connection."""
    return int(query("SELECT pg_backend_pid() AS pid", {})[0]["pid"])


def drop_ghost(host: str, pid: int | None) -> bool:
    """End our own last connection where the database has not noticed yet that it broke.

    False: it is not that which holds the host, but somebody else.
    """
    rows = query(
        """SELECT l.pid, CASE WHEN l.pid = %(pid)s::int THEN pg_terminate_backend(l.pid) END
           FROM pg_locks l JOIN pg_database d ON d.oid = l.database
           WHERE l.locktype = 'advisory' AND l.granted AND d.datname = current_database()
             AND l.classid::bigint = %(class)s::bigint
             AND l.objid::bigint = hashtext(%(host)s::text)::bigint & 4294967295
             AND l.objsubid = 2""",
        {"class": _LOCK_CLASS, "host": host, "pid": pid},
    )
    return all(row["pid"] == pid for row in rows)


def default_project() -> Project:
    """Return the project that the host's own agents belong to."""
    return Project.objects.get_or_create(slug="default")[0]


def show_host(project: Project, host: str, specs: Mapping[str, Spec], pid: int | None) -> None:
    """Write that this host, whose supervisor asks, lives, what it offers and what it carries.

    `pid` None: its supervisor has ended.
    """
    query(
        """INSERT INTO agents_host (project_id, name, specs, pid, carries, seen_at)
           VALUES (%(project)s, %(name)s, %(specs)s::jsonb, %(pid)s::int, %(carries)s::int, now())
           ON CONFLICT (project_id, name) DO UPDATE
           SET specs = excluded.specs, pid = excluded.pid, carries = excluded.carries,
               seen_at = now()""",
        {
            "project": project.pk,
            "name": host,
            "specs": json.dumps({name: spec.offered() for name, spec in specs.items()}),
            "pid": pid,
            "carries": processes.most_agents(),
        },
    )


def take_over(host: str, reason: str) -> list[UUID]:
    """End the sessions that an earlier supervisor of this host left; return them."""
    open_sessions = AgentSession.objects.filter(
        host=host, ended_at=None, agent__kind__in=SUPERVISED, agent__host=host
    )
    ids = list(open_sessions.values_list("id", flat=True))
    usage.forget_host(host)
    return sessions.close(ids, reason)


def wanted(host: str) -> dict[UUID, Wanted]:
    """Return every agent of this host that runs or should run."""
    rows = query(
        """SELECT a.id, a.name, a.project_id, p.slug AS project, a.spec, a.kind,
                  a.capabilities, a.labels,
                  a.desired = 'running' AS running,
                  a.paused OR COALESCE(a.places, 1) = 0 AS paused, a.generation, a.status,
                  s.id AS live_session, s.ready_at IS NOT NULL AS is_ready,
                  coalesce(s.claims, 0) AS claims, coalesce(s.condemned, '') AS condemned
           FROM agents_agent a
           JOIN opscore_project p ON p.id = a.project_id
           LEFT JOIN agents_agentsession s ON s.agent_id = a.id AND s.ended_at IS NULL
           WHERE a.host = %(host)s::text AND a.kind = ANY(%(kinds)s::text[])
             AND (a.desired = 'running' OR a.status <> 'terminated' OR s.id IS NOT NULL)
           ORDER BY a.name""",
        {"host": host, "kinds": list(SUPERVISED)},
    )
    return {row["id"]: Wanted(**row) for row in rows}


def start_session(
    agent_id: UUID, host: str, queues: list[str], max_claims: int | None = None
) -> AgentSession:
    """Begin a session for a process that is about to be forked."""
    agent = Agent.objects.get(pk=agent_id)
    return sessions.start(agent, host=host, queues=queues, max_claims=max_claims)


def key_for(agent: Wanted, session_id: UUID) -> str:
    """Return a key with which a program may act as this agent, for as long as the session."""
    project = Project(pk=agent.project_id, slug=agent.project)
    return keys.create_for_session(project, f"agent {agent.name}"[:100], session_id)


def queues_of(agent: Wanted, serving: Iterable[str]) -> list[str]:
    """Return what the agent consumes: shared queues and one of its own; none if it polls."""
    if agent.polls:
        return []
    shared = [PLATFORM_QUEUE] if agent.is_platform else serving
    return [*shared, queues.own(agent.id)]


def show_pid(session_id: UUID, pid: int) -> None:
    """Write which process a session is."""
    AgentSession.objects.filter(pk=session_id).update(pid=pid)


def widen(session_id: UUID, queues: list[str]) -> None:
    """Write that a running session consumes these queues now."""
    AgentSession.objects.filter(pk=session_id).update(queues=queues)
