"""REST: what a support person would ask for."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from opscore import __version__, keys
from opscore.api.auth import key_of
from opscore.api.endpoint import Endpoint
from opscore.api.schema import name_enum
from opscore.database import database_now
from opscore.diagnosis import STATUSES, findings
from workflows.diagnosis import CHECKS

name_enum("FindingStatus", STATUSES)


class FindingSerializer(serializers.Serializer[Any]):
    """What was found about one part."""

    part = serializers.CharField()
    status = serializers.ChoiceField(STATUSES)
    message = serializers.CharField()
    advice = serializers.CharField(allow_blank=True, help_text="What to do about it.")


class OwnKeySerializer(serializers.Serializer[Any]):
    """The key that asked."""

    name = serializers.CharField()
    prefix = serializers.CharField()
    scopes = serializers.ListField(child=serializers.ChoiceField(keys.SCOPES))
    expires_at = serializers.DateTimeField(allow_null=True)


class DiagnosticsSerializer(serializers.Serializer[Any]):
    """`status` is the worst of the findings."""

    status = serializers.ChoiceField(STATUSES)
    version = serializers.CharField()
    project = serializers.CharField()
    at = serializers.DateTimeField(help_text="By the clock of the database.")
    key = OwnKeySerializer()
    findings = FindingSerializer(many=True)


class Diagnostics(Endpoint):
    """How everything is, with what to do about it."""

    scopes = {"GET": "admin"}

    @extend_schema(responses=DiagnosticsSerializer, operation_id="diagnostics")
    def get(self, request: Request) -> Response:
        """Check every part of the platform, and the project of the key; shows no secret."""
        found = findings(CHECKS, self.project)
        body = {
            "status": max((one.status for one in found), key=STATUSES.index),
            "version": __version__,
            "project": self.project.slug,
            "at": database_now(),
            "key": key_of(request),
            "findings": [asdict(one) for one in found],
        }
        return Response(DiagnosticsSerializer(body).data)


urlpatterns = [path("diagnostics", Diagnostics.as_view())]
