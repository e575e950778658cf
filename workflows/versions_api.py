"""REST: the versions of a workflow."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.urls import path
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from opscore.api.endpoint import Endpoint, Listing
from workflows import registry
from workflows.models import WorkflowVersion
from workflows.serializers import VersionSerializer


class VersionDetailSerializer(VersionSerializer):
    """One version with its definition."""

    definition = serializers.SerializerMethodField()

    class Meta(VersionSerializer.Meta):
        fields = [*VersionSerializer.Meta.fields, "definition"]

    @extend_schema_field({"type": "object", "additionalProperties": True})
    def get_definition(self, version: WorkflowVersion) -> Any:
        """Return the definition as canonical JSON."""
        return version.definition


class Versions(Listing):
    """The versions of one workflow."""

    serializer_class = VersionSerializer

    def newest(self) -> QuerySet[Any]:
        """Return the workflow's versions."""
        workflow = registry.find(self.project, self.kwargs["ref"])
        return WorkflowVersion.objects.filter(workflow=workflow).defer("definition")


class OneVersion(Endpoint):
    """One version of a workflow, by its author's name for it or by number."""

    @extend_schema(responses=VersionDetailSerializer)
    def get(self, request: Request, ref: str, version: str) -> Response:
        """Show a version with its definition; it never changes. `latest` is the newest one."""
        workflow = registry.find(self.project, ref)
        found = registry.version_of(workflow, version)
        return Response(VersionDetailSerializer(found).data)


urlpatterns = [
    path("workflows/<str:ref>/versions", Versions.as_view()),
    path("workflows/<str:ref>/versions/<str:version>", OneVersion.as_view()),
]
