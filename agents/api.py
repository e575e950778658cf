"""REST: register, list, show, restart, pause and stop agents; sessions of executors over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar
from uuid import UUID

import django_filters
from django.db.models import QuerySet
from django.http import Http404
from django.urls import include, path
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework.request import Request
from rest_framework.response import Response

from agents import endpoints, registry, sessions, workload
from agents.models import Agent, AgentSession
from agents.serializers import (
    STATUSES,
    AgentDetailSerializer,
    AgentSerializer,
    RegisteredSerializer,
    RegisterSerializer,
    SecretSerializer,
    StartedSessionSerializer,
    StartSessionSerializer,
    shown,
)
from agents.states import KINDS, SUPERVISED
from opscore.api.endpoint import Endpoint, Listing, path_of
from opscore.api.idempotency import idempotent
from opscore.config import load_config
from opscore.errors import ConflictError, ForbiddenError, InvalidError, Problem

#: The longest that a claim may wait; proxies cut silent connections after a minute.
CLAIM_WAIT_MAX_S = 30.0

Method = TypeVar("Method", bound=Callable[..., Response])


@extend_schema_field({"type": "string", "enum": [*STATUSES]})
class StatusFilter(django_filters.BaseInFilter, django_filters.ChoiceFilter):
    """One or more statuses, separated by commas."""


class AgentFilter(django_filters.FilterSet):
    """Filters of the list of agents."""

    status = StatusFilter(choices=[(name, name) for name in STATUSES], method="by_status")
    kind = django_filters.ChoiceFilter(choices=[(kind, kind) for kind in KINDS])
    capability = django_filters.CharFilter(field_name="capabilities", method="by_capability")

    class Meta:
        model = Agent
        fields: list[str] = []

    def by_status(self, agents: QuerySet[Agent], name: str, statuses: list[str]) -> QuerySet[Agent]:
        """Keep agents in one of the statuses; `busy` is derived, so it is looked up."""
        kept = agents.filter(status__in=statuses)
        if "busy" in statuses or "active" in statuses:
            active = list(agents.filter(status="active"))
            counts = workload.running(active)
            wanted = [
                agent.pk
                for agent in active
                if workload.shown_status(agent, counts[agent.pk]) in statuses
            ]
            kept = agents.filter(pk__in=wanted) | kept.exclude(status="active")
        return kept

    def by_capability(self, agents: QuerySet[Agent], name: str, word: str) -> QuerySet[Agent]:
        """Keep agents that offer the capability."""
        return agents.filter(capabilities__contains=[word])


def _with_secret(method: Method) -> Method:
    """Add the secret of a new agent of kind http outside of what `idempotent` stores."""

    @wraps(method)
    def post(view: Endpoint, request: Request) -> Response:
        response = method(view, request)
        if response.status_code == 201 and response.data["kind"] == endpoints.KIND:
            agent = registry.find(view.project, response.data["id"])
            response.data = {**response.data, "secret": endpoints.secret_of(agent)}
        return response

    return post  # type: ignore[return-value]


class Agents(Listing):
    """The agents of the project."""

    scopes = {"POST": "admin"}
    session_methods = ("POST",)
    serializer_class = AgentSerializer
    filterset_class = AgentFilter

    def newest(self) -> QuerySet[Any]:
        """Return the project's agents."""
        return Agent.objects.filter(project=self.project).select_related("usage")

    def get_serializer(self, *args: Any, **kwargs: Any) -> Any:
        """Count the running tasks of the whole page in one query."""
        if kwargs.get("many") and args:
            kwargs["context"] = {"running": workload.running(args[0])}
        return super().get_serializer(*args, **kwargs)

    @extend_schema(
        request=RegisterSerializer,
        responses={201: RegisteredSerializer, 200: AgentDetailSerializer},
    )
    @_with_secret
    @idempotent
    def post(self, request: Request) -> Response:
        """Register an agent; 200 when this name is registered with the same kind already.

        Ops-Core starts agents of kind worker, command and process; others start themselves. One of
        kind http is sent its tasks at `url`; the answer shows its secret, once. A program that a
        supervisor started gets its own agent as its spec says it is.
        """
        fields = self.checked(RegisterSerializer)
        if self.own_session is not None:
            return Response(shown(_own_agent(self.own_session, fields)))
        options = {name: fields.pop(name) for name in endpoints.OPTIONS if name in fields}
        agent, created = endpoints.register(
            self.project, actor=self.actor, options=options, **fields
        )
        headers = {"Location": path_of(request, "agents", agent.pk)}
        return Response(shown(agent), status=201 if created else 200, headers=headers)


class OneAgent(Endpoint):
    """One agent, by id or name."""

    scopes = {"DELETE": "admin"}

    @extend_schema(responses=AgentDetailSerializer)
    def get(self, request: Request, ref: str) -> Response:
        """Show an agent with its latest sessions."""
        return Response(shown(registry.find(self.project, ref)))

    @extend_schema(responses={202: AgentDetailSerializer})
    def delete(self, request: Request, ref: str) -> Response:
        """Stop an agent: it finishes its present task, then its process ends."""
        agent = registry.find(self.project, ref)
        registry.retire(agent, self.actor)
        agent.refresh_from_db()
        return Response(shown(agent), status=202)


class RestartAgent(Endpoint):
    """Restart of one agent."""

    scopes = {"POST": "admin"}

    @extend_schema(request=None, responses={202: AgentDetailSerializer})
    @idempotent
    def post(self, request: Request, ref: str) -> Response:
        """Have an agent's process replaced after its present task; also ends `error`."""
        agent = registry.find(self.project, ref)
        registry.restart(agent, self.actor)
        agent.refresh_from_db()
        return Response(shown(agent), status=202)


class PauseAgent(Endpoint):
    """Pause of one agent."""

    scopes = {"POST": "admin"}

    @extend_schema(request=None, responses=AgentDetailSerializer)
    @idempotent
    def post(self, request: Request, ref: str) -> Response:
        """Have an agent take nothing new; it finishes what it has. Harmless when it is paused."""
        agent = registry.find(self.project, ref)
        registry.pause(agent, self.actor)
        agent.refresh_from_db()
        return Response(shown(agent))


class ResumeAgent(Endpoint):
    """Resume of one agent."""

    scopes = {"POST": "admin"}

    @extend_schema(request=None, responses=AgentDetailSerializer)
    @idempotent
    def post(self, request: Request, ref: str) -> Response:
        """Have a paused agent take tasks again. Harmless when it is not paused."""
        agent = registry.find(self.project, ref)
        registry.resume(agent, self.actor)
        agent.refresh_from_db()
        return Response(shown(agent))


class AgentSecret(Endpoint):
    """The secret of one agent of kind http."""

    scopes = {"POST": "admin"}

    @extend_schema(request=None, responses=SecretSerializer)
    def post(self, request: Request, ref: str) -> Response:
        """Give the agent a new secret, which counts at once; it is shown only here."""
        agent = registry.find(self.project, ref)
        return Response({"secret": endpoints.change_secret(agent, self.actor)})


class AgentSessions(Endpoint):
    """Lives of an executor that speaks HTTP."""

    scopes = {"POST": "agent"}
    session_methods = ("POST",)

    @extend_schema(request=StartSessionSerializer, responses={201: StartedSessionSerializer})
    @idempotent
    def post(self, request: Request, ref: str) -> Response:
        """Begin a session; an open one of the same agent ends, its tasks are given back.

        A program that a supervisor started begins the session that was opened for it.
        """
        agent = registry.find(self.project, ref)
        said = self.checked(StartSessionSerializer)
        session_id = self.own_session or _begin(agent, said)
        if self.own_session is not None:
            sessions.begin_own(agent, session_id)
        body = {
            "session_id": str(session_id),
            # A third of the time to live: two beats may get lost.
            "heartbeat_s": round(load_config().session_ttl_s / 3, 1),
            "claim_wait_max_s": CLAIM_WAIT_MAX_S,
        }
        headers = {"Location": path_of(request, "sessions", session_id)}
        return Response(body, status=201, headers=headers)


class OneSession(Endpoint):
    """One session of an executor."""

    scopes = {"DELETE": "agent"}
    session_methods = ("DELETE",)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, session_id: UUID) -> Response:
        """End a session; what it held is given back. Harmless when it has ended."""
        refuse_foreign(self, session_id)
        mine = AgentSession.objects.filter(project=self.project, pk=session_id)
        if not mine.exists():
            raise Http404(f"There is no session {session_id}.")
        sessions.end([session_id], "ended by its executor", lost=False)
        return Response(status=204)


def refuse_foreign(view: Endpoint, session_id: UUID) -> None:
    """Raise ForbiddenError where the key is for another session only."""
    if view.own_session not in (None, session_id):
        raise ForbiddenError(f"The key {view.actor!r} is for another session.")


def _begin(agent: Agent, said: dict[str, Any]) -> UUID:
    if agent.kind in SUPERVISED:
        raise ConflictError(f"The agent {agent.name!r} is started by Ops-Core ({agent.kind}).")
    if agent.kind == endpoints.KIND:
        raise ConflictError(f"The agent {agent.name!r} is sent its tasks; it polls for none.")
    if agent.desired != "running":
        raise ConflictError(f"The agent {agent.name!r} was stopped; register it again.")
    session = sessions.start(agent, **said)
    sessions.ready(session.pk)
    return session.pk


def _own_agent(session_id: UUID, said: dict[str, Any]) -> Agent:
    session = AgentSession.objects.select_related("agent__project").get(pk=session_id)
    agent = session.agent
    if said["name"] != agent.name:
        raise ForbiddenError(f"This key is for the agent {agent.name!r}, not {said['name']!r}.")
    if foreign := sorted(set(said.get("capabilities", ())) - set(agent.capabilities)):
        message = f"the spec {agent.spec!r} does not have: {', '.join(foreign)}"
        raise InvalidError("This agent cannot be registered.", [Problem(message, "capabilities")])
    return agent


urlpatterns = [
    path("agents", Agents.as_view()),
    path("agents/<str:ref>", OneAgent.as_view()),
    path("agents/<str:ref>/restart", RestartAgent.as_view()),
    path("agents/<str:ref>/secret", AgentSecret.as_view()),
    path("agents/<str:ref>/pause", PauseAgent.as_view()),
    path("agents/<str:ref>/resume", ResumeAgent.as_view()),
    path("agents/<str:ref>/sessions", AgentSessions.as_view()),
    path("sessions/<uuid:session_id>", OneSession.as_view()),
    path("", include("agents.lifecycle_api")),
]
