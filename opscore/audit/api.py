"""`GET /audit`: who did what; `GET /audit/verify`: whether the log is still whole."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db.models import QuerySet
from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from opscore.api.endpoint import Endpoint, Listing
from opscore.audit import verdicts
from opscore.models import AuditEntry


class AuditEntrySerializer(serializers.ModelSerializer[AuditEntry]):
    """One thing that somebody did, or was refused."""

    address = serializers.CharField(allow_null=True)

    class Meta:
        model = AuditEntry
        fields = [
            "id",
            "number",
            "at",
            "actor",
            "actor_kind",
            "key",
            "address",
            "request_id",
            "action",
            "target",
            "status",
            "data",
            "previous",
            "hash",
        ]


class AuditFilter(django_filters.FilterSet):
    """Filters of the audit log."""

    actor = django_filters.CharFilter(help_text="Name of a key or a user.")
    key = django_filters.CharFilter(help_text="Prefix of a key.")
    action = django_filters.CharFilter(
        lookup_expr="startswith", help_text="As `POST /runs` or `login`."
    )
    target = django_filters.CharFilter(lookup_expr="startswith", help_text="As `/agents/echo-1`.")
    request_id = django_filters.CharFilter()
    status = django_filters.NumberFilter()
    since = django_filters.IsoDateTimeFilter(field_name="at", lookup_expr="gte")
    until = django_filters.IsoDateTimeFilter(field_name="at", lookup_expr="lt")

    class Meta:
        model = AuditEntry
        fields: list[str] = []


class Audit(Listing):
    """Who did what, from where: changes, refusals, and what was done to keys."""

    scopes = {"GET": "admin"}
    serializer_class = AuditEntrySerializer
    filterset_class = AuditFilter

    def newest(self) -> QuerySet[Any]:
        """Return the project's rows."""
        return AuditEntry.objects.filter(project=self.project)


class VerdictSerializer(serializers.Serializer[Any]):
    """Whether the audit log is whole."""

    ok = serializers.BooleanField()
    checked = serializers.IntegerField(help_text="Rows of all projects that were looked at.")
    first = serializers.IntegerField(allow_null=True)
    last = serializers.IntegerField(allow_null=True)
    head = serializers.CharField(help_text="Hash of the last row; keep it elsewhere.")
    broken = serializers.IntegerField(
        allow_null=True, help_text="Number of the first row that was changed or is missing."
    )
    problem = serializers.CharField(allow_blank=True)
    at = serializers.DateTimeField(help_text="When the chain was followed.")


class VerifyAudit(Endpoint):
    """The chain of the audit log."""

    scopes = {"GET": "admin"}

    @extend_schema(responses=VerdictSerializer)
    def get(self, request: Request) -> Response:
        """Tell whether the chain of hashes is whole, and which link is the first broken one.

        It is followed at most once a minute, and more rarely where that takes long; `at` says when.
        503: it is being followed for somebody else.
        """
        told = verdicts.latest()
        return Response(told.verdict.as_dict() | {"at": told.at})


urlpatterns = [
    path("audit", Audit.as_view()),
    path("audit/verify", VerifyAudit.as_view()),
]
