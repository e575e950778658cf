"""Agents of kind http: where they are, what they sign with, whether they may be sent to."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urljoin
from uuid import UUID

from django.db import transaction
from django.utils.crypto import salted_hmac

from agents import addresses, registry, sessions, transitions
from agents.models import Agent, AgentSession, Endpoint
from opscore.config import load_config
from opscore.database import query
from opscore.errors import ConflictError, InvalidError, Problem
from opscore.models import Project

KIND = "http"
#: What only agents of this kind have, with what is taken when it is not said.
OPTIONS: Mapping[str, Any] = {"url": "", "health_path": "", "timeout_s": 300.0}


@dataclass(frozen=True)
class Target:
    """An agent of kind http, as the pusher needs it."""

    agent_id: UUID
    name: str
    project_id: int
    capabilities: Sequence[str]
    url: str
    health_path: str
    concurrency: int
    timeout_s: float
    nonce: str
    paused: bool
    places: int | None
    """Tasks that its circuit breaker lets it have at once; None: no limit."""
    status: str
    session_id: UUID | None
    """Its open session; None: it did not answer, or nobody has asked yet."""
    is_wanted: bool = True
    """Whether it should run; otherwise it only finishes what it has."""

    @property
    def secret(self) -> str:
        """What requests to it are signed with."""
        return _secret(self.agent_id, self.nonce)

    @property
    def parts(self) -> SplitResult:
        """Its URL, parsed."""
        return addresses.parse_url(self.url)

    @property
    def health_url(self) -> str:
        """What a probe asks."""
        return urljoin(self.url, self.health_path) if self.health_path else self.url


def may_be_sent_to(target: Target, hold_until: float, now: float) -> bool:
    """Tell whether the agent may be given work now.

    An open circuit breaker lets nothing through; a half-open one is heeded by each claim, which
    counts what the agent has. `hold_until` is when its own wish to be
    left alone ends (Retry-After, a failed connection), on the clock of `now`.
    """
    is_well = target.session_id is not None and hold_until <= now
    is_shut = target.paused or target.places == 0
    return is_well and target.is_wanted and not is_shut


def register(
    project: Project, *, options: Mapping[str, Any], actor: str = "", **fields: Any
) -> tuple[Agent, bool]:
    """Do what `registry.register` does, for any kind; `options` are those of OPTIONS.

    Raises InvalidError and ConflictError as it does, and InvalidError for a URL that nobody
    may be sent to.
    """
    if fields.get("kind") != KIND:
        problems = [Problem("only agents of kind http have it", name) for name in options]
        if problems:
            raise InvalidError("This agent cannot be registered.", problems)
        return registry.register(project, actor=actor, **fields)
    # An agent that is sent its tasks cannot say by itself when it has enough.
    fields["concurrency"] = fields.get("concurrency") or 1
    wish = {**OPTIONS, **options}
    _check(wish)
    with transaction.atomic():
        agent, is_new = registry.register(project, actor=actor, **fields)
        if not Endpoint.objects.filter(agent=agent).update(**wish):
            Endpoint.objects.create(agent=agent, nonce=secrets.token_hex(16), **wish)
    return agent, is_new


def secret_of(agent: Agent) -> str:
    """Return the agent's secret. Raises ConflictError when it is of another kind."""
    endpoint = Endpoint.objects.filter(agent=agent).first()
    if endpoint is None:
        raise ConflictError(f"The agent {agent.name!r} has no secret: it is not of kind http.")
    return _secret(agent.pk, endpoint.nonce)


def change_secret(agent: Agent, actor: str = "") -> str:
    """Give the agent a new secret, which counts from the next request on, and return it."""
    with transaction.atomic():
        secret_of(agent)
        Endpoint.objects.filter(agent=agent).update(nonce=secrets.token_hex(16))
        transitions.note([agent.pk], "agent.secret_changed", actor=actor)
        return secret_of(agent)


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """Return the value of `Opscore-Signature`."""
    message = str(timestamp).encode() + b"." + body
    return "sha256=" + hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def targets() -> list[Target]:
    """Return every agent of this kind that should run or finishes what it has."""
    return [Target(**row) for row in query(_TARGETS, {"kind": KIND})]


def answered(target: Target, host: str, pid: int) -> None:
    """Begin a session: the agent answers. Harmless when it has one."""
    agent = Agent.objects.get(pk=target.agent_id)
    with transaction.atomic():
        if agent.desired != "running" or AgentSession.objects.filter(agent=agent, ended_at=None):
            return
        sessions.ready(sessions.start(agent, host=host, pid=pid).pk)


def silent(target: Target, reason: str) -> None:
    """End the session of an agent that does not answer; what it held is given back."""
    with transaction.atomic():
        if target.session_id:
            sessions.end([target.session_id], reason)
        if target.status != "unresponsive":
            transitions.change([target.agent_id], "unresponsive", reason=reason)


def _check(wish: Mapping[str, Any]) -> None:
    parts = addresses.parse_url(wish["url"])
    path = wish["health_path"]
    if path and (not path.startswith("/") or path.startswith("//")):
        problem = Problem("a path on the agent's own host is expected: /health", "health_path")
        raise InvalidError("This agent cannot be registered.", [problem])
    addresses.parse_url(urljoin(wish["url"], path), "health_path")
    addresses.check(parts, addresses.networks(load_config().push_networks))


def _secret(agent_id: UUID, nonce: str) -> str:
    # Not stored: whoever reads the database, or a dump of it, cannot sign.
    return salted_hmac("opscore.push", f"{agent_id}/{nonce}", algorithm="sha256").hexdigest()


_TARGETS = """
SELECT a.id AS agent_id, a.name, a.project_id, a.capabilities, e.url, e.health_path,
       COALESCE(a.concurrency, 1) AS concurrency, e.timeout_s, e.nonce, a.paused, a.places,
       a.status, s.id AS session_id, a.desired = 'running' AS is_wanted
  FROM agents_endpoint e
  JOIN agents_agent a ON a.id = e.agent_id AND a.kind = %(kind)s
  LEFT JOIN agents_agentsession s ON s.agent_id = a.id AND s.ended_at IS NULL
 WHERE a.desired = 'running' OR s.id IS NOT NULL
 ORDER BY a.id
"""
