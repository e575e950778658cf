"""What the key of one session, or of one agent, may touch: that session's, or agent's, own work."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import Http404

from agents import registry
from agents.models import Agent, AgentSession
from opscore.api.endpoint import Endpoint
from opscore.errors import ForbiddenError, InvalidError, NotFoundError, Problem


def is_bound(view: Endpoint) -> bool:
    """Tell whether the key is good for one session or one agent only."""
    return view.own_session is not None or view.own_agent is not None


def own_sessions(view: Endpoint) -> QuerySet[AgentSession]:
    """Return the sessions that the key may act for, ended ones too, with their agents."""
    found = AgentSession.objects.select_related("agent").filter(project=view.project)
    if view.own_session is not None:
        return found.filter(pk=view.own_session)
    return found if view.own_agent is None else found.filter(agent_id=view.own_agent)


def is_own(view: Endpoint, session: AgentSession) -> bool:
    """Tell whether a session is among `own_sessions`, without asking the database."""
    return (
        session.project_id == view.project.pk
        and view.own_session in (None, session.pk)
        and view.own_agent in (None, session.agent_id)
    )


def may_speak_for(view: Endpoint, session_id: UUID | None) -> bool:
    """Tell whether the key may speak for what this session holds; an unbound one may for all."""
    if view.own_session is not None:
        return session_id == view.own_session
    if view.own_agent is None:
        return True
    return session_id is not None and own_sessions(view).filter(pk=session_id).exists()


def missing(view: Endpoint, session_id: UUID) -> Exception:
    """Return what to raise for a session that is not among `own_sessions`."""
    if view.own_session is not None:
        return ForbiddenError(f"The key {view.actor!r} is for another session.")
    return Http404(f"There is no session {session_id}.")


def agent_of(view: Endpoint) -> Agent | None:
    """Return the agent that a bound key acts as; None: it is not bound, or its session has ended."""
    agents = Agent.objects.select_related("project").filter(project=view.project)
    if view.own_session is not None:
        return agents.filter(sessions__id=view.own_session, sessions__ended_at=None).first()
    return None if view.own_agent is None else agents.filter(pk=view.own_agent).first()


def find(view: Endpoint, ref: str) -> Agent:
    """Do what `registry.find` does; for the key of an agent there is no other one."""
    if view.own_agent is None:
        return registry.find(view.project, ref)
    own = agent_of(view)
    if own is None or ref not in (own.name, str(own.pk)):
        raise NotFoundError(f"There is no agent {ref!r}.")
    return own


def checked_agent(view: Endpoint, said: dict[str, Any]) -> Agent:
    """Return the agent of a bound key that registers it; it stays as it is.

    Raises ForbiddenError for another name, InvalidError for capabilities that it does not have:
    whoever has the key of an agent may not widen what the agent is sent.
    """
    agent = agent_of(view)
    if agent is None or said["name"] != agent.name:
        own = repr(agent.name) if agent else "that has ended"
        raise ForbiddenError(f"This key is for the agent {own}, not {said['name']!r}.")
    if foreign := sorted(set(said.get("capabilities", ())) - set(agent.capabilities)):
        whose = f"the spec {agent.spec!r}" if agent.spec else f"the agent {agent.name!r}"
        message = f"{whose} does not have: {', '.join(foreign)}"
        raise InvalidError("This agent cannot be registered.", [Problem(message, "capabilities")])
    return agent
