"""REST: register, list, show, restart, pause and stop agents; sessions of executors over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import django_filters
from django.db.models import QuerySet
from django.urls import include, path
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_field
from rest_framework.request import Request
from rest_framework.response import Response

from agents import bound_keys, endpoints, registry, sessions, workload
from agents.models import Agent, AgentSession
from agents.serializers import (
    STATUSES,
    AgentDetailSerializer,
    AgentSerializer,
    RegisteredSerializer,
    RegisterSerializer,
    SessionSerializer,
    SigningSecretSerializer,
    StartedSessionSerializer,
    StartSessionSerializer,
    shown,
)
from agents.states import KINDS, SUPERVISED
from opscore.api.endpoint import Endpoint, Listing, path_of
from opscore.api.events import Events
from opscore.api.pages import BY_AGE_OR_NAME
from opscore.config import load_config
from opscore.errors import ConflictError

#: The longest that a claim may wait; proxies cut silent connections after a minute.
CLAIM_WAIT_MAX_S = 30.0

#: What people say of an agent; all else follows from its life.
_SAID = (
    "name",
    "kind",
    "spec",
    "host",
    "capabilities",
    "labels",
    "desired",
    "paused",
    "concurrency",
    "generation",
)


@extend_schema_field({"type": "string", "enum": [*STATUSES]})
class StatusFilter(django_filters.BaseInFilter, django_filters.ChoiceFilter):
    """One or more statuses, separated by commas."""


class AgentFilter(django_filters.FilterSet):
    """Filters of the list of agents."""

    status = StatusFilter(choices=[(name, name) for name in STATUSES], method="by_status")
    kind = django_filters.ChoiceFilter(choices=[(kind, kind) for kind in KINDS])
    name = django_filters.CharFilter(lookup_expr="icontains", help_text="Part of the name.")
    host = django_filters.CharFilter(help_text="Of the supervisor that runs it.")
    paused = django_filters.BooleanFilter()
    label = django_filters.CharFilter(method="by_label")
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

    def by_label(self, agents: QuerySet[Agent], name: str, word: str) -> QuerySet[Agent]:
        """Keep agents that have the label."""
        return agents.filter(labels__contains=[word])


_REGISTER = OpenApiExample(
    "An agent that polls",
    {"name": "ann", "kind": "remote", "capabilities": ["review"], "labels": ["gpu"]},
    request_only=True,
)


class Agents(Listing):
    """The agents of the project."""

    scopes = {"POST": "admin"}
    session_methods = ("POST",)
    serializer_class = AgentSerializer
    filterset_class = AgentFilter
    orderings = BY_AGE_OR_NAME

    def newest(self) -> QuerySet[Any]:
        """Return the project's agents."""
        return Agent.objects.filter(project=self.project).select_related("usage")

    def context_of(self, rows: Sequence[Agent]) -> Mapping[str, Any]:
        """Count the running tasks of the whole page in one query."""
        return {"running": workload.running(rows)}

    @extend_schema(
        request=RegisterSerializer,
        responses={201: RegisteredSerializer, 200: AgentDetailSerializer},
        examples=[_REGISTER],
    )
    def post(self, request: Request) -> Response:
        """Register an agent; 200 when this name is registered with the same kind already.

        Ops-Core starts agents of kind worker, command and process; others start themselves. One of
        kind http is sent its tasks at `url`; the answer shows its secret, once. A program that a
        supervisor started, and whoever has the key of one agent, gets its own agent as it is.
        """
        fields = self.checked(RegisterSerializer)
        if bound_keys.is_bound(self):
            return Response(shown(bound_keys.checked_agent(self, fields)))
        options = {name: fields.pop(name) for name in endpoints.OPTIONS if name in fields}
        agent, created = endpoints.register(
            self.project, actor=self.actor, options=options, **fields
        )
        headers = {"Location": path_of(request, "agents", agent.pk)}
        return Response(shown(agent), status=201 if created else 200, headers=headers)

    def secrets(self, response: Response) -> Mapping[str, Any]:
        """Show the secret of a new agent of kind http, this once."""
        if response.status_code != 201 or response.data["kind"] != endpoints.KIND:
            return {}
        return {"secret": endpoints.secret_of(registry.find(self.project, response.data["id"]))}


class OneAgent(Endpoint):
    """One agent, by id or name."""

    scopes = {"DELETE": "admin"}
    is_edited = True

    def edited(self, **kwargs: Any) -> Any:
        """Return what was said of the agent, without how it is."""
        agent = registry.find(self.project, kwargs["ref"])
        return {name: getattr(agent, name) for name in _SAID}

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
    def post(self, request: Request, ref: str) -> Response:
        """Have a paused agent take tasks again. Harmless when it is not paused."""
        agent = registry.find(self.project, ref)
        registry.resume(agent, self.actor)
        agent.refresh_from_db()
        return Response(shown(agent))


class AgentSecret(Endpoint):
    """The secret of one agent of kind http."""

    scopes = {"POST": "admin"}

    @extend_schema(request=None, responses=SigningSecretSerializer)
    def post(self, request: Request, ref: str) -> Response:
        """Give the agent a new secret, which counts at once; it is shown only here."""
        endpoints.change_secret(registry.find(self.project, ref), self.actor)
        return Response({})

    def secrets(self, response: Response) -> Mapping[str, Any]:
        """Show the secret, the changed one also to a request that is sent again."""
        agent = registry.find(self.project, self.kwargs["ref"])
        return {"secret": endpoints.secret_of(agent)}


class SessionFilter(django_filters.FilterSet):
    """Filters of an agent's sessions."""

    live = django_filters.BooleanFilter(field_name="ended_at", lookup_expr="isnull")

    class Meta:
        model = AgentSession
        fields: list[str] = []


class AgentSessions(Listing):
    """The lives of one agent."""

    scopes = {"POST": "agent"}
    session_methods = ("POST",)
    serializer_class = SessionSerializer
    filterset_class = SessionFilter

    def newest(self) -> QuerySet[Any]:
        """Return the agent's sessions."""
        return AgentSession.objects.filter(agent=registry.find(self.project, self.kwargs["ref"]))

    @extend_schema(operation_id="agents_sessions_list")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return the agent's lives, one page, newest first."""
        return self.list(request, *args, **kwargs)

    @extend_schema(request=StartSessionSerializer, responses={201: StartedSessionSerializer})
    def post(self, request: Request, ref: str) -> Response:
        """Begin a session; an open one of the same agent ends, its tasks are given back.

        A program that a supervisor started begins the session that was opened for it.
        """
        agent = bound_keys.find(self, ref)
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

    @extend_schema(responses=SessionSerializer)
    def get(self, request: Request, session_id: UUID) -> Response:
        """Show a session: when it began, was heard of last and ended, and why."""
        return Response(SessionSerializer(self._session(session_id)).data)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, session_id: UUID) -> Response:
        """End a session; what it held is given back. Harmless when it has ended.

        The agent is `terminated` then, until it begins another session.
        """
        sessions.sign_off(self._session(session_id).agent, session_id)
        return Response(status=204)

    def _session(self, session_id: UUID) -> AgentSession:
        session = bound_keys.own_sessions(self).filter(pk=session_id).first()
        if session is None:
            raise bound_keys.missing(self, session_id)
        return session


class AgentEvents(Events):
    """What happened to one agent."""

    def newest(self) -> QuerySet[Any]:
        """Return the agent's events."""
        agent = registry.find(self.project, self.kwargs["ref"])
        return super().newest().filter(agent_id=agent.pk)


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


urlpatterns = [
    path("agents", Agents.as_view()),
    # Before the names: an agent that is called `stream` is shown by its id.
    path("", include("agents.streams_api")),
    path("agents/<str:ref>", OneAgent.as_view()),
    path("agents/<str:ref>/restart", RestartAgent.as_view()),
    path("agents/<str:ref>/secret", AgentSecret.as_view()),
    path("agents/<str:ref>/pause", PauseAgent.as_view()),
    path("agents/<str:ref>/resume", ResumeAgent.as_view()),
    path("agents/<str:ref>/sessions", AgentSessions.as_view()),
    path("agents/<str:ref>/events", AgentEvents.as_view()),
    path("sessions/<uuid:session_id>", OneSession.as_view()),
    path("", include("agents.keys_api")),
    path("", include("agents.lifecycle_api")),
    path("", include("agents.routing_api")),
    path("", include("agents.breaker_api")),
]
