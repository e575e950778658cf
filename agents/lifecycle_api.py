"""REST: drain and stop agents, read their output, see hosts and resize their pools."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import Http404
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from agents import output, pools, registry
from agents.autoscale import Autoscale
from agents.models import Agent, Host
from agents.serializers import (
    AgentDetailSerializer,
    HostSerializer,
    OfferedSerializer,
    OutputSerializer,
    ScaleSerializer,
    StopSerializer,
    shown,
)
from opscore.api.endpoint import Endpoint, Listing
from opscore.api.watching import WatchedEndpoint
from opscore.errors import InvalidError, NotFoundError, Problem

_LINES = 100


class DrainAgent(Endpoint):
    """Drain of one agent."""

    scopes = {"POST": "admin"}

    @extend_schema(request=None, responses={202: AgentDetailSerializer})
    def post(self, request: Request, ref: str) -> Response:
        """Have an agent take nothing new, finish what it has, then end. Harmless when it does.

        Its task may take as long as it takes. Without one, a supervised agent is killed when it has
        not ended after `OPSCORE_DRAIN_S` seconds. 409 for the platform's own agents.
        """
        agent = registry.find(self.project, ref)
        registry.drain(agent, self.actor)
        return _accepted(agent)


class StopAgent(Endpoint):
    """Stop of one agent."""

    scopes = {"POST": "admin"}

    @extend_schema(request=StopSerializer, responses={202: AgentDetailSerializer})
    def post(self, request: Request, ref: str) -> Response:
        """Stop an agent as DELETE does; with `force` at once: what it has runs elsewhere."""
        agent = registry.find(self.project, ref)
        end = registry.stop if self.checked(StopSerializer)["force"] else registry.retire
        end(agent, self.actor)
        return _accepted(agent)


class AgentLogs(WatchedEndpoint):
    """Output of one agent."""

    words = {
        "GET": [
            OpenApiParameter("lines", OpenApiTypes.INT, description="At most 1000, default 100.")
        ]
    }
    look = staticmethod(output.answered)

    def patience(self, request: Request) -> float:
        """Wait for the supervisor's answer, whatever the client says."""
        return output.PATIENCE_S

    def alive(self, **kwargs: Any) -> UUID | None:
        """Ask the supervisor; return the agent whose output will come."""
        _count(self.request)
        agent = registry.find(self.project, kwargs["ref"])
        return agent.pk if output.ask(agent) else None

    def shown(self, ticket: UUID) -> Any:
        """Return what is known now."""
        agent = Agent.objects.filter(pk=ticket).first()
        if agent is None:
            raise NotFoundError
        return _output(output.told(agent, _count(self.request)))

    @extend_schema(responses=OutputSerializer)
    def get(self, request: Request, ref: str) -> Response:
        """Return the end of what an agent wrote to stdout and stderr.

        Its supervisor is asked, on whichever host; where it does not live or answer within two
        seconds, `fresh` is false and the lines are those that it told last. What it told within
        the last second is told again. Agents that Ops-Core did not start have none.
        """
        lines = _count(request)
        agent = registry.find(self.project, ref)
        # Where it may wait, `alive` has asked already.
        known = output.told if getattr(request, "may_wait", False) else output.tail
        return Response(_output(known(agent, lines)))


def _output(tail: output.Tail) -> dict[str, Any]:
    body = {"lines": tail.lines, "written_at": tail.written_at, "fresh": tail.is_fresh}
    return dict(OutputSerializer(body).data)


class Hosts(Listing):
    """The hosts of the project."""

    serializer_class = HostSerializer

    def newest(self) -> QuerySet[Any]:
        """Return the hosts with their pools."""
        return Host.objects.filter(project=self.project).prefetch_related("pools")


class OneHost(Endpoint):
    """One host, by name."""

    scopes = {"DELETE": "admin"}

    @extend_schema(responses=HostSerializer)
    def get(self, request: Request, name: str) -> Response:
        """Show a host, what it offers and how many agents of each spec it keeps."""
        return Response(HostSerializer(pools.find_host(self.project, name)).data)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, name: str) -> Response:
        """Forget a host that is dead, with its pools; its agents are terminated. 409: it lives."""
        registry.forget_host(pools.find_host(self.project, name))
        return Response(status=204)


class OnePool(Endpoint):
    """How many agents of one spec a host keeps."""

    scopes = {"PUT": "admin", "DELETE": "admin"}
    is_edited = True

    def edited(self, **kwargs: Any) -> Any:
        """Return what an operator set, without what the autoscale rule decides."""
        found = self._found(kwargs["name"], kwargs["spec"])
        return {name: found[name] for name in ("set_replicas", "set_autoscale")}

    @extend_schema(responses=OfferedSerializer)
    def get(self, request: Request, name: str, spec: str) -> Response:
        """Show what a host offers under this name, and its pool."""
        return Response(self._found(name, spec))

    def _found(self, name: str, spec: str) -> dict[str, Any]:
        host = pools.find_host(self.project, name)
        offered: list[dict[str, Any]] = list(OfferedSerializer(pools.shown(host), many=True).data)
        for one in offered:
            if one["name"] == spec:
                return one
        raise Http404(f"The host {name} offers no {spec!r}.")

    @extend_schema(request=ScaleSerializer, responses=HostSerializer)
    def put(self, request: Request, name: str, spec: str) -> Response:
        """Have a host keep `replicas` agents of a spec, or as many as an `autoscale` rule says.

        It goes before the host's file, also after restarts of anything, and replaces what was
        said here before. Agents that are too many finish their tasks first. 400 when the file
        allows less (`max_replicas`), or the host's limit of open files does (`carries`).
        """
        said = self.checked(ScaleSerializer)
        host = pools.find_host(self.project, name)
        if "autoscale" in said:
            pools.set_rule(host, spec, Autoscale(**said["autoscale"]), self.actor)
        else:
            pools.scale(host, spec, said["replicas"], self.actor)
        return Response(HostSerializer(host).data)

    @extend_schema(responses={200: HostSerializer})
    def delete(self, request: Request, name: str, spec: str) -> Response:
        """Take the number or rule back: the host's file decides again."""
        host = pools.find_host(self.project, name)
        pools.scale(host, spec, None, self.actor)
        return Response(HostSerializer(host).data)


def _accepted(agent: Agent) -> Response:
    agent.refresh_from_db()
    return Response(shown(agent), status=202)


def _count(request: Request) -> int:
    text = request.query_params.get("lines", str(_LINES))
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
