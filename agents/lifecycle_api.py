"""REST: drain and stop agents, read their output, see hosts and resize their pools."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from agents import output, pools, registry
from agents.models import Agent, Host
from agents.serializers import (
    AgentDetailSerializer,
    HostSerializer,
    OutputSerializer,
    ScaleSerializer,
    StopSerializer,
    shown,
)
from opscore.api.endpoint import Endpoint, Listing
from opscore.api.idempotency import idempotent
from opscore.errors import InvalidError, Problem

_LINES = 100


class DrainAgent(Endpoint):
    """Drain of one agent."""

    scopes = {"POST": "admin"}

    @extend_schema(request=None, responses={202: AgentDetailSerializer})
    @idempotent
    def post(self, request: Request, ref: str) -> Response:
        """Have an agent take nothing new, finish what it has, then end. Harmless when it does.

        A supervised one is killed when it has not ended after `OPSCORE_DRAIN_S` seconds.
        """
        agent = registry.find(self.project, ref)
        registry.drain(agent, self.actor)
        return _accepted(agent)


class StopAgent(Endpoint):
    """Stop of one agent."""

    scopes = {"POST": "admin"}

    @extend_schema(request=StopSerializer, responses={202: AgentDetailSerializer})
    @idempotent
    def post(self, request: Request, ref: str) -> Response:
        """Stop an agent as DELETE does; with `force` at once: what it has runs elsewhere."""
        agent = registry.find(self.project, ref)
        end = registry.stop if self.checked(StopSerializer)["force"] else registry.retire
        end(agent, self.actor)
        return _accepted(agent)


class AgentLogs(Endpoint):
    """Output of one agent."""

    @extend_schema(
        parameters=[
            OpenApiParameter("lines", OpenApiTypes.INT, description="At most 1000, default 100.")
        ],
        responses=OutputSerializer,
    )
    def get(self, request: Request, ref: str) -> Response:
        """Return the end of what an agent wrote to stdout and stderr.

        Its supervisor is asked, on whichever host; where it does not answer within two seconds,
        `fresh` is false and the lines are those that it told last. Agents that Ops-Core did not
        start have none.
        """
        lines = _count(request)
        agent = registry.find(self.project, ref)
        tail = output.tail(agent, lines, *(() if agent.host else (0.0,)))
        body = {"lines": tail.lines, "written_at": tail.written_at, "fresh": tail.is_fresh}
        return Response(OutputSerializer(body).data)


class Hosts(Listing):
    """The hosts of the project."""

    serializer_class = HostSerializer

    def newest(self) -> QuerySet[Any]:
        """Return the hosts with their pools."""
        return Host.objects.filter(project=self.project).prefetch_related("pools")


class OneHost(Endpoint):
    """One host, by name."""

    @extend_schema(responses=HostSerializer)
    def get(self, request: Request, name: str) -> Response:
        """Show a host, what it offers and how many agents of each spec it keeps."""
        return Response(HostSerializer(pools.find_host(self.project, name)).data)


class OnePool(Endpoint):
    """How many agents of one spec a host keeps."""

    scopes = {"PUT": "admin", "DELETE": "admin"}

    @extend_schema(request=ScaleSerializer, responses=HostSerializer)
    def put(self, request: Request, name: str, spec: str) -> Response:
        """Have a host keep `replicas` agents of a spec, also after restarts of anything.

        The number goes before the host's file and stops the spec's autoscale rule. Agents that
        are too many finish their tasks first.
        """
        replicas = self.checked(ScaleSerializer)["replicas"]
        return self._scaled(name, spec, replicas)

    @extend_schema(responses=HostSerializer)
    def delete(self, request: Request, name: str, spec: str) -> Response:
        """Take the number back: the host's file, or its autoscale rule, decides again."""
        return self._scaled(name, spec, None)

    def _scaled(self, name: str, spec: str, replicas: int | None) -> Response:
        host = pools.find_host(self.project, name)
        pools.scale(host, spec, replicas, self.actor)
        return Response(HostSerializer(host).data)


def _accepted(agent: Agent) -> Response:
    agent.refresh_from_db()
    return Response(shown(agent), status=202)


def _count(request: Request) -> int:
    text = request.query_params.get("lines", str(_LINES))
    if unknown := sorted(set(request.query_params) - {"lines"}):
        raise InvalidError("Unknown parameter.", [Problem("known: lines", unknown[0])])
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= output.MAX_LINES:
        message = f"a whole number from 1 to {output.MAX_LINES} is expected, not {text[:20]!r}"
        raise InvalidError("The output cannot be shown like that.", [Problem(message, "lines")])
    return int(text)


urlpatterns = [
    path("agents/<str:ref>/drain", DrainAgent.as_view()),
    path("agents/<str:ref>/stop", StopAgent.as_view()),
    path("agents/<str:ref>/logs", AgentLogs.as_view()),
    path("hosts", Hosts.as_view()),
    path("hosts/<str:name>", OneHost.as_view()),
    path("hosts/<str:name>/specs/<str:spec>", OnePool.as_view()),
]
