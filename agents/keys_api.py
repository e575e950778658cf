"""REST: API keys. Beside the agents, because a key may be bound to one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import django_filters
from django.db.models import QuerySet
from django.urls import path
from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agents import registry
from agents.models import Agent
from opscore import keys
from opscore.api.endpoint import Endpoint, Listing, StrictSerializer, path_of
from opscore.api.schema import name_enum
from opscore.errors import InvalidError, Problem
from opscore.models import NAME_LENGTH, ApiKey

name_enum("KeyScope", keys.SCOPES)
name_enum("KeyState", keys.STATES)
#: Long enough to roll a key out over a fleet, short enough that it is not forgotten.
_LONGEST_OVERLAP_S = 30 * 24 * 3600


class KeyAgentSerializer(serializers.Serializer[Any]):
    """The agent that a key is bound to."""

    id = serializers.UUIDField()
    name = serializers.CharField()


class KeySerializer(serializers.ModelSerializer[ApiKey]):
    """A key, without its secret."""

    scopes = serializers.ListField(child=serializers.ChoiceField(keys.SCOPES))
    state = serializers.SerializerMethodField()
    agent = serializers.SerializerMethodField()

    class Meta:
        model = ApiKey
        fields = [
            "prefix",
            "name",
            "scopes",
            "state",
            "agent",
            "created_at",
            "expires_at",
            "last_used_at",
            "revoked_at",
        ]

    @extend_schema_field(serializers.ChoiceField(keys.STATES))
    def get_state(self, key: ApiKey) -> str:
        """Say whether the key works."""
        return keys.state_of(key)

    @extend_schema_field(KeyAgentSerializer(allow_null=True))
    def get_agent(self, key: ApiKey) -> dict[str, str] | None:
        """Return the only agent that the key may act as."""
        if key.agent_id is None:
            return None
        return {"id": str(key.agent_id), "name": self.context["agents"].get(key.agent_id, "")}


class NewKeySerializer(KeySerializer):
    """A key that was made just now."""

    key = serializers.CharField(
        allow_null=True,
        help_text="The key itself, shown only here; null to a request that is sent again.",
    )

    class Meta(KeySerializer.Meta):
        fields = [*KeySerializer.Meta.fields, "key"]


class CreateKeySerializer(StrictSerializer):
    """What `POST /keys` takes."""

    name = serializers.CharField(max_length=NAME_LENGTH, help_text="What it is for.")
    scopes = serializers.ListField(
        child=serializers.ChoiceField(keys.SCOPES),
        min_length=1,
        max_length=len(keys.SCOPES),
        required=False,
        help_text="Default: read and write; agent for the key of one agent.",
    )
    expires_at = serializers.DateTimeField(required=False, allow_null=True)
    agent = serializers.CharField(
        required=False, allow_null=True, help_text="Name or id of the only agent it may act as."
    )


class RotateKeySerializer(StrictSerializer):
    """How a key is replaced."""

    overlap_s = serializers.FloatField(
        min_value=0,
        max_value=_LONGEST_OVERLAP_S,
        default=3600,
        help_text="Seconds for which the old key still works.",
    )
    expires_at = serializers.DateTimeField(
        required=False, allow_null=True, help_text="Default: it lives as long as the old one."
    )


class KeyFilter(django_filters.FilterSet):
    """Filters of the list of keys."""

    name = django_filters.CharFilter()
    agent = django_filters.UUIDFilter(field_name="agent_id")

    class Meta:
        model = ApiKey
        fields: list[str] = []


class _Maker(Endpoint):
    """Makes a key, whose text must not be kept with the answer for an `Idempotency-Key`."""

    _text: str | None = None

    def secrets(self, response: Response) -> Mapping[str, Any]:
        """Show the text of the key that this very request made."""
        return {"key": self._text}

    def _made(self, key: ApiKey, text: str) -> Response:
        self._text = text
        key.refresh_from_db()
        headers = {"Location": path_of(self.request, "keys", key.prefix)}
        return Response(_shown(key), status=201, headers=headers)


class Keys(_Maker, Listing):
    """The API keys of the project; not those that sessions of agents get by themselves."""

    scopes = {"GET": "admin", "POST": "admin"}
    serializer_class = KeySerializer
    filterset_class = KeyFilter

    def newest(self) -> QuerySet[Any]:
        """Return the project's keys."""
        return ApiKey.objects.filter(project=self.project, session_id=None)

    def context_of(self, rows: Sequence[ApiKey]) -> Mapping[str, Any]:
        """Look up the agents of the whole page in one query."""
        return _context(rows)

    @extend_schema(request=CreateKeySerializer, responses={201: NewKeySerializer})
    def post(self, request: Request) -> Response:
        """Make a key; its text is shown only here.

        A key with `agent` may act as this one agent only: begin its sessions, claim, report. It
        sees and reports nothing of what other agents have.
        """
        said = self.checked(CreateKeySerializer)
        ref = said.get("agent")
        agent = registry.find(self.project, ref) if ref else None
        scopes = said.get("scopes") or (["agent"] if agent else ["read", "write"])
        key, text = keys.create(
            self.project,
            said["name"],
            scopes,
            expires_at=_future(said),
            agent_id=agent.pk if agent else None,
        )
        return self._made(key, text)


class OneKey(Endpoint):
    """One API key, by prefix or name; of several with one name the newest that works."""

    scopes = {"GET": "admin", "DELETE": "admin"}

    @extend_schema(responses=KeySerializer)
    def get(self, request: Request, ref: str) -> Response:
        """Show a key, never its secret."""
        return Response(_shown(keys.find(self.project, ref)))

    @extend_schema(responses={204: None})
    def delete(self, request: Request, ref: str) -> Response:
        """Revoke a key at once; by name, all keys of this name. Harmless when it is revoked."""
        keys.revoke(self.project, ref)
        return Response(status=204)


class RotateKey(_Maker):
    """Rotation of one API key."""

    scopes = {"POST": "admin"}

    @extend_schema(request=RotateKeySerializer, responses={201: NewKeySerializer})
    def post(self, request: Request, ref: str) -> Response:
        """Make a successor with the same rights; its text is shown only here.

        The old key works for `overlap_s` more seconds. 409 when it works no more already.
        """
        said = self.checked(RotateKeySerializer)
        old = keys.find(self.project, ref)
        overlap = timedelta(seconds=said["overlap_s"])
        return self._made(*keys.rotate(old, overlap=overlap, expires_at=_future(said)))


def _shown(key: ApiKey) -> dict[str, Any]:
    return dict(KeySerializer(key, context=_context([key])).data)


def _context(page: Sequence[ApiKey]) -> dict[str, Any]:
    bound = [key.agent_id for key in page if key.agent_id is not None]
    names = Agent.objects.filter(pk__in=bound).values_list("id", "name") if bound else ()
    return {"agents": dict(names)}


def _future(said: dict[str, Any]) -> Any:
    expires_at = said.get("expires_at")
    if expires_at is not None and expires_at <= timezone.now():
        raise InvalidError("This key cannot be made.", [Problem("lies in the past", "expires_at")])
    return expires_at


urlpatterns = [
    path("keys", Keys.as_view()),
    path("keys/<str:ref>", OneKey.as_view()),
    path("keys/<str:ref>/rotate", RotateKey.as_view()),
]
