"""REST: capabilities, and which strategy chooses the agents of each."""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agents import routes
from agents.capabilities import capabilities
from agents.models import Route
from agents.routing import DEFAULT, MAX_WEIGHT, STRATEGIES
from opscore.api.endpoint import Endpoint, StrictSerializer
from opscore.api.schema import name_enum

name_enum("RoutingStrategy", tuple(STRATEGIES))


class RouteSerializer(serializers.ModelSerializer[Route]):
    """How the agent of a capability's tasks is chosen."""

    weights = serializers.DictField(child=serializers.IntegerField())

    class Meta:
        model = Route
        fields = ["capability", "strategy", "weights", "changed_at"]


class PutRouteSerializer(StrictSerializer):
    """A strategy, and the weights of `weighted`."""

    strategy = serializers.ChoiceField(tuple(STRATEGIES))
    weights = serializers.DictField(
        child=serializers.IntegerField(min_value=1, max_value=MAX_WEIGHT),
        required=False,
        help_text="For `weighted`: agent or label -> 1 to 100; who is not named counts 1.",
    )


class CapabilitySerializer(serializers.Serializer[Any]):
    """A capability, who has it, and how much there is to do."""

    name = serializers.CharField()
    strategy = serializers.ChoiceField(
        tuple(STRATEGIES), help_text=f"`{DEFAULT}`: whoever is free first takes a task."
    )
    weights = serializers.DictField(child=serializers.IntegerField())
    agents = serializers.ListField(child=serializers.CharField(), help_text="Names.")
    live = serializers.IntegerField(help_text="How many of the agents take work now.")
    queued = serializers.IntegerField()
    running = serializers.IntegerField()


class CapabilitiesSerializer(serializers.Serializer[Any]):
    """All capabilities of the project, by name."""

    capabilities = CapabilitySerializer(many=True)


class Capabilities(Endpoint):
    """The capabilities of the project."""

    @extend_schema(responses=CapabilitiesSerializer)
    def get(self, request: Request) -> Response:
        """List every capability that an agent offers, a task waits for or a route names."""
        found = [one.as_dict() for one in capabilities(self.project)]
        return Response(CapabilitiesSerializer({"capabilities": found}).data)


class OneRoute(Endpoint):
    """The route of one capability."""

    scopes = {"PUT": "admin", "DELETE": "admin"}
    is_edited = True

    def edited(self, **kwargs: Any) -> Any:
        """Return strategy and weights."""
        mine = Route.objects.filter(project=self.project, capability=kwargs["name"])
        return mine.values("strategy", "weights").first()

    @extend_schema(responses=RouteSerializer)
    def get(self, request: Request, name: str) -> Response:
        """Show the route of a capability; 404: it has none, the pull decides."""
        return Response(RouteSerializer(routes.find(self.project, name)).data)

    @extend_schema(request=PutRouteSerializer, responses=RouteSerializer)
    def put(self, request: Request, name: str) -> Response:
        """Choose the strategy of a capability, for what is queued from now on."""
        said = self.checked(PutRouteSerializer)
        weights = said.get("weights", {})
        route = routes.put(self.project, name, said["strategy"], weights, self.actor)
        return Response(RouteSerializer(route).data)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, name: str) -> Response:
        """Let the pull decide again: whoever is free first takes a task."""
        routes.drop(self.project, name, self.actor)
        return Response(status=204)


urlpatterns = [
    path("capabilities", Capabilities.as_view()),
    path("capabilities/<path:name>/route", OneRoute.as_view()),
]
