"""Workflows and their versions as JSON."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from opscore.api.endpoint import StrictSerializer
from opscore.api.schema import ProblemSerializer
from tasks.serializers import FAIRNESS
from workflows.drawing import FORMATS
from workflows.models import Workflow, WorkflowVersion


class VersionSerializer(serializers.ModelSerializer[WorkflowVersion]):
    """One immutable version, without its definition."""

    class Meta:
        model = WorkflowVersion
        fields = ["id", "number", "version", "digest", "created_at"]


class WorkflowSerializer(serializers.ModelSerializer[Workflow]):
    """A workflow."""

    class Meta:
        model = Workflow
        fields = ["id", "name", "description", "created_at"]


class WorkflowDetailSerializer(WorkflowSerializer):
    """A workflow with its versions and the latest definition."""

    latest = serializers.SerializerMethodField()
    versions = serializers.SerializerMethodField()
    definition = serializers.SerializerMethodField()

    class Meta(WorkflowSerializer.Meta):
        fields = [*WorkflowSerializer.Meta.fields, "latest", "versions", "definition"]

    @extend_schema_field({"type": "string"})
    def get_latest(self, workflow: Workflow) -> str:
        """Return the name of the latest version."""
        return latest(workflow).version

    @extend_schema_field(VersionSerializer(many=True))
    def get_versions(self, workflow: Workflow) -> list[dict[str, Any]]:
        """Return the latest hundred versions, newest first."""
        newest = workflow.versions.defer("definition").order_by("-number")[:100]
        return list(VersionSerializer(newest, many=True).data)

    @extend_schema_field({"type": "object", "additionalProperties": True})
    def get_definition(self, workflow: Workflow) -> Any:
        """Return the latest definition as canonical JSON."""
        return latest(workflow).definition


class UploadedSerializer(serializers.Serializer[Any]):
    """The version that was uploaded, new or known."""

    id = serializers.UUIDField(help_text="Of the workflow.")
    name = serializers.CharField()
    version = serializers.CharField()
    version_id = serializers.UUIDField()
    created = serializers.BooleanField(help_text="False: this content was known.")


class ValidSerializer(serializers.Serializer[Any]):
    """The answer for a definition without problems."""

    valid = serializers.BooleanField()
    name = serializers.CharField()
    tasks = serializers.IntegerField(help_text="Those of blocks and of `finally` too.")
    warnings = ProblemSerializer(
        many=True,
        help_text="What a run would wait for at present, as capabilities that no agent offers.",
    )


class GraphSerializer(serializers.Serializer[Any]):
    """A drawn definition."""

    format = serializers.ChoiceField(choices=FORMATS)
    graph = serializers.CharField(help_text="A list by levels, or a Mermaid flowchart.")


class ExecuteSerializer(StrictSerializer):
    """What `POST /workflows/{id}/execute` takes."""

    inputs = serializers.DictField(
        required=False, help_text="Checked against the workflow's schema."
    )
    priority = serializers.IntegerField(
        min_value=0, max_value=9, required=False, allow_null=True, help_text="9 is served first."
    )
    version = serializers.CharField(
        max_length=40, required=False, allow_null=True, help_text="Default: the latest."
    )
    fairness_key = serializers.CharField(**FAIRNESS)


def latest(workflow: Workflow) -> WorkflowVersion:
    """Return the latest version of a workflow."""
    return workflow.versions.order_by("-number")[:1].get()
