"""REST: upload, validate, list, show and execute workflows."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db import transaction
from django.db.models import QuerySet
from django.urls import include, path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response

from opscore.api import etags
from opscore.api.endpoint import Endpoint, Listing, path_of, unknown_word
from opscore.api.pages import BY_AGE_OR_NAME
from opscore.api.parsers import JSONText, YAMLText, YAMLTextOld, YAMLTextPlain
from opscore.api.watching import WAIT
from opscore.documents import Document, read
from opscore.errors import InvalidError, NotFoundError, Problem
from tasks.serializers import RunDetailSerializer, run_shown
from tasks.waiting import WatchedRun
from workflows import registry
from workflows.advice import warnings_of
from workflows.definition import Definition, from_data
from workflows.drawing import FORMATS, draw
from workflows.models import Workflow
from workflows.reading import definition_of
from workflows.serializers import (
    ExecuteSerializer,
    GraphSerializer,
    UploadedSerializer,
    ValidSerializer,
    WorkflowDetailSerializer,
    WorkflowSerializer,
    latest,
)

_DEFINITION = {
    "application/json": OpenApiTypes.OBJECT,
    "application/yaml": OpenApiTypes.OBJECT,
}
_FORMAT = OpenApiParameter(
    "format", OpenApiTypes.STR, enum=FORMATS, default="text", description="text or mermaid."
)
_EXECUTE = OpenApiExample(
    "With inputs", {"inputs": {"repo": "https://example.org/shop.git"}}, request_only=True
)
_UPLOAD = OpenApiExample(
    "Two tasks",
    {
        "name": "review",
        "tasks": {
            "read": {"capability": "read", "with": {"repo": "${{ inputs.repo }}"}},
            "judge": {"capability": "judge", "needs": ["read"]},
        },
    },
    request_only=True,
)
_TEXTS: list[type[BaseParser]] = [JSONText, YAMLText, YAMLTextOld, YAMLTextPlain]


class WorkflowFilter(django_filters.FilterSet):
    """Filters of the list of workflows."""

    name = django_filters.CharFilter(lookup_expr="icontains", help_text="Part of the name.")

    class Meta:
        model = Workflow
        fields: list[str] = []


class Workflows(Listing):
    """The workflows of the project."""

    parser_classes = _TEXTS
    serializer_class = WorkflowSerializer
    filterset_class = WorkflowFilter
    orderings = BY_AGE_OR_NAME

    def newest(self) -> QuerySet[Any]:
        """Return the project's workflows."""
        return Workflow.objects.filter(project=self.project)

    @extend_schema(
        request=_DEFINITION,
        responses={201: UploadedSerializer, 200: UploadedSerializer},
        examples=[_UPLOAD],
    )
    def post(self, request: Request) -> Response:
        """Upload a definition, YAML or JSON by Content-Type; 200 when this content is known.

        Every problem is reported at once, with path and line.
        """
        definition = _definition(request)
        with transaction.atomic():
            # Not between the look and the change of an edit with `If-Match`.
            etags.hold(self.project, OneWorkflow.__name__)
            return _uploaded(self, definition)


class ValidateWorkflow(Endpoint):
    """A check without an upload."""

    parser_classes = _TEXTS
    scopes = {"POST": "read"}

    @extend_schema(request=_DEFINITION, responses=ValidSerializer)
    def post(self, request: Request) -> Response:
        """Check a definition; 400 with every problem. Nothing is stored.

        Problems and warnings have their path and line.
        """
        document = _document(request)
        definition = definition_of(document)
        warnings = warnings_of(self.project, definition, document)
        body = {
            "valid": True,
            "name": definition.name,
            "tasks": sum(1 for _ in definition.every_task()),
            "warnings": [warning.as_dict() for warning in warnings],
        }
        return Response(body)


class DrawWorkflow(Endpoint):
    """A picture without an upload."""

    parser_classes = _TEXTS
    scopes = {"POST": "read"}
    words = {"POST": [_FORMAT]}

    @extend_schema(request=_DEFINITION, responses=GraphSerializer)
    def post(self, request: Request) -> Response:
        """Draw the graph of a definition; 400 with every problem. Nothing is stored."""
        return _drawn(request, _definition(request))


class WorkflowGraph(Endpoint):
    """The picture of one workflow."""

    words = {"GET": [_FORMAT]}

    @extend_schema(responses=GraphSerializer)
    def get(self, request: Request, ref: str) -> Response:
        """Draw the graph of a workflow's latest version."""
        return _drawn(request, from_data(latest(registry.find(self.project, ref)).definition))


class OneWorkflow(Endpoint):
    """One workflow, by id or name."""

    parser_classes = _TEXTS
    is_edited = True

    def edited(self, **kwargs: Any) -> Any:
        """Return the id of the latest version; None: there is no such workflow yet."""
        try:
            return str(latest(registry.find(self.project, kwargs["ref"])).pk)
        except NotFoundError:
            return None

    @extend_schema(responses=WorkflowDetailSerializer)
    def get(self, request: Request, ref: str) -> Response:
        """Show a workflow with its versions and the latest definition."""
        return Response(WorkflowDetailSerializer(registry.find(self.project, ref)).data)

    @extend_schema(
        request=_DEFINITION, responses={201: UploadedSerializer, 200: UploadedSerializer}
    )
    def put(self, request: Request, ref: str) -> Response:
        """Upload the next version of this workflow, whose name the definition must have.

        With `If-Match` only over the version that you read, with `If-None-Match: *` only the first.
        """
        definition = _definition(request)
        known = Workflow.objects.filter(project=self.project, name=definition.name).first()
        if ref not in {definition.name, str(known.pk) if known else ""}:
            problem = Problem(f"is {definition.name!r}, not {ref!r}", "name")
            raise InvalidError("This is the definition of another workflow.", [problem])
        return _uploaded(self, definition)


class ExecuteWorkflow(WatchedRun):
    """Runs of one workflow."""

    waits = "POST"
    words = {"POST": [WAIT]}

    @extend_schema(
        request=ExecuteSerializer,
        responses={201: RunDetailSerializer},
        examples=[_EXECUTE],
    )
    def post(self, request: Request, ref: str) -> Response:
        """Start a run; 400 with the path where the inputs do not meet the workflow's schema."""
        wanted = self.checked(ExecuteSerializer)
        inputs = wanted.pop("inputs", {})
        run = registry.execute(self.project, ref, inputs=inputs, actor=self.actor, **wanted)
        run.refresh_from_db()
        headers = {"Location": path_of(request, "runs", run.pk)}
        return Response(run_shown(run, self.only), status=201, headers=headers)


def _uploaded(view: Endpoint, definition: Definition) -> Response:
    version, created = registry.upload(view.project, definition)
    body = {
        "id": str(version.workflow_id),
        "name": version.workflow.name,
        "version": version.version,
        "version_id": str(version.pk),
        "created": created,
    }
    headers = {"Location": path_of(view.request, "workflows", version.workflow_id)}
    return Response(body, status=201 if created else 200, headers=headers)


def _drawn(request: Request, definition: Definition) -> Response:
    notation = request.query_params.get("format", "text")
    if notation not in FORMATS:
        problem = Problem(unknown_word("format", notation, list(FORMATS)), "format")
        raise InvalidError("The graph cannot be drawn like that.", [problem])
    return Response({"format": notation, "graph": draw(definition, notation)})


def _definition(request: Request) -> Definition:
    return definition_of(_document(request))


def _document(request: Request) -> Document:
    text: Any = request.data
    if not isinstance(text, str):
        raise InvalidError("The body must be a workflow definition, YAML or JSON.")
    kind = (request.content_type or "").partition(";")[0].strip().lower()
    return read(text, "json" if kind == "application/json" else "yaml")


urlpatterns = [
    path("workflows", Workflows.as_view()),
    path("workflows/validate", ValidateWorkflow.as_view()),
    path("workflows/graph", DrawWorkflow.as_view()),
    path("workflows/<str:ref>", OneWorkflow.as_view()),
    path("workflows/<str:ref>/graph", WorkflowGraph.as_view()),
    path("workflows/<str:ref>/execute", ExecuteWorkflow.as_view()),
    path("", include("workflows.versions_api")),
]
