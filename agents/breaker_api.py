"""REST: circuit breakers of agents and resources, opened and closed by hand or by themselves."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.urls import path
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agents import breakers
from agents.models import Breaker
from opscore.api.endpoint import Endpoint, Listing, StrictSerializer
from opscore.api.schema import name_enum
from opscore.breaker import STATES

name_enum("BreakerState", STATES)
name_enum("BreakerKind", breakers.KINDS)
_MONTH_S = 31 * 86400


class BreakerSerializer(serializers.ModelSerializer[Breaker]):
    """A circuit breaker: where it stands, and when it opens."""

    since = serializers.SerializerMethodField()

    class Meta:
        model = Breaker
        fields = [
            "kind",
            "name",
            "state",
            "since",
            "until",
            "calls",
            "failures",
            "places",
            "openings",
            "reason",
            "changed_by",
            "threshold",
            "min_calls",
            "window_s",
            "cooldown_s",
        ]

    @extend_schema_field(serializers.DateTimeField(allow_null=True))
    def get_since(self, found: Breaker) -> str | None:
        """Return when its state began; None: it never changed."""
        return None if found.since <= breakers.NEVER else found.since.isoformat()


class OpenSerializer(StrictSerializer):
    """How a breaker is opened by hand."""

    reason = serializers.CharField(max_length=300, required=False, allow_blank=True)
    for_s = serializers.FloatField(
        min_value=1,
        max_value=_MONTH_S,
        required=False,
        allow_null=True,
        help_text="Then a probe goes through; without it somebody must close the breaker.",
    )


class RuleSerializer(StrictSerializer):
    """When a breaker opens; what is left out stays as it is."""

    threshold = serializers.FloatField(
        min_value=0.01, max_value=1, required=False, help_text="Part of the attempts that failed."
    )
    min_calls = serializers.IntegerField(
        min_value=1, max_value=100_000, required=False, help_text="Never opens by fewer attempts."
    )
    window_s = serializers.FloatField(
        min_value=1, max_value=86400, required=False, help_text="How long attempts are counted."
    )
    cooldown_s = serializers.FloatField(
        min_value=1, max_value=86400, required=False, help_text="How long it stays open at first."
    )


class Breakers(Listing):
    """The circuit breakers of the project."""

    serializer_class = BreakerSerializer

    def newest(self) -> QuerySet[Any]:
        """Return those that ever failed, were opened or configured."""
        return Breaker.objects.filter(project=self.project)


class OneBreaker(Endpoint):
    """One circuit breaker."""

    scopes = {"PUT": "admin"}
    is_edited = True

    def edited(self, **kwargs: Any) -> Any:
        """Return its rule."""
        found = breakers.find(self.project, kwargs["kind"], kwargs["name"])
        return [found.threshold, found.min_calls, found.window_s, found.cooldown_s]

    @extend_schema(responses=BreakerSerializer)
    def get(self, request: Request, kind: str, name: str) -> Response:
        """Show a breaker; a resource that never failed has a closed one."""
        return _shown(breakers.find(self.project, kind, name))

    @extend_schema(request=RuleSerializer, responses=BreakerSerializer)
    def put(self, request: Request, kind: str, name: str) -> Response:
        """Change when a breaker opens and for how long."""
        rule = self.checked(RuleSerializer)
        return _shown(breakers.configure(self.project, kind, name, rule, self.actor))


class OpenBreaker(Endpoint):
    """Opening of one circuit breaker."""

    scopes = {"POST": "admin"}

    @extend_schema(request=OpenSerializer, responses=BreakerSerializer)
    def post(self, request: Request, kind: str, name: str) -> Response:
        """Open a breaker by hand: what needs it is parked, and what runs goes on."""
        said = self.checked(OpenSerializer)
        return _shown(breakers.open_by_hand(self.project, kind, name, actor=self.actor, **said))


class CloseBreaker(Endpoint):
    """Closing of one circuit breaker."""

    scopes = {"POST": "admin"}

    @extend_schema(request=None, responses=BreakerSerializer)
    def post(self, request: Request, kind: str, name: str) -> Response:
        """Close a breaker by hand: its failures are forgotten, all that was parked goes on."""
        return _shown(breakers.close_by_hand(self.project, kind, name, actor=self.actor))


def _shown(found: Breaker) -> Response:
    return Response(BreakerSerializer(found).data)


_ONE = "breakers/<str:kind>/<str:name>"
urlpatterns = [
    path("breakers", Breakers.as_view()),
    path(_ONE, OneBreaker.as_view()),
    path(f"{_ONE}/open", OpenBreaker.as_view()),
    path(f"{_ONE}/close", CloseBreaker.as_view()),
]
