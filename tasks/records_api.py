"""REST: what became of a run or task: attempts, events, graph, timeline, approvals."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from opscore.api.endpoint import Endpoint, unknown_word
from opscore.api.events import Events
from opscore.errors import InvalidError, Problem
from tasks.attempts import tries_of
from tasks.control_api import Approvals, run_of, task_of
from tasks.models import Task
from tasks.pictures import FORMATS, edges, mermaid
from tasks.serializers import AgentRefSerializer, ErrorValueSerializer
from tasks.states import RUN


class TrySerializer(serializers.Serializer[Any]):
    """One try of a task."""

    number = serializers.IntegerField(
        help_text="A try that was `lost` does not count: the next one has its number."
    )
    outcome = serializers.CharField(
        help_text="failed, lost, timeout, cancelled or repeated; of the last one also running or "
        "completed."
    )
    agent = AgentRefSerializer(allow_null=True)
    session_id = serializers.UUIDField(allow_null=True)
    error = ErrorValueSerializer(allow_null=True)
    started_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)


class TriesSerializer(serializers.Serializer[Any]):
    """All tries of a task, oldest first."""

    attempts = TrySerializer(many=True)


class Attempts(Endpoint):
    """The tries of one task."""

    @extend_schema(responses=TriesSerializer)
    def get(self, request: Request, task_id: UUID) -> Response:
        """Show every try, the present or successful one last."""
        task = task_of(self, task_id)
        return Response(TriesSerializer({"attempts": tries_of([task])[task.pk]}).data)


class TaskEvents(Events):
    """What happened to one task."""

    def newest(self) -> QuerySet[Any]:
        """Return the task's events."""
        return super().newest().filter(task_id=task_of(self, self.kwargs["task_id"]).pk)


class RunEvents(Events):
    """What happened to one run and its tasks."""

    def newest(self) -> QuerySet[Any]:
        """Return the run's events."""
        return super().newest().filter(run_id=run_of(self, self.kwargs["run_id"]).pk)


class RunApprovals(Approvals):
    """What of one run waits for a decision."""

    def newest(self) -> QuerySet[Any]:
        """Return the run's tasks that wait for an approval."""
        return super().newest().filter(run=run_of(self, self.kwargs["run_id"]))


class GraphNodeSerializer(serializers.ModelSerializer[Task]):
    """A task of a run's graph."""

    parent_id = serializers.UUIDField(
        allow_null=True, help_text="The `for_each` task that it is an item of."
    )
    child_run_id = serializers.UUIDField(source="names.run", default=None, allow_null=True)

    class Meta:
        model = Task
        fields = [
            "id",
            "key",
            "uses",
            "capability",
            "status",
            "join",
            "phase",
            "parent_id",
            "item_index",
            "child_run_id",
        ]


class EdgeSerializer(serializers.Serializer[Any]):
    """`to` begins when `from` has ended."""

    vars()["from"] = serializers.UUIDField()
    to = serializers.UUIDField()


class RunGraphSerializer(serializers.Serializer[Any]):
    """A run's graph, as it is now."""

    run_id = serializers.UUIDField()
    status = serializers.ChoiceField(RUN.statuses)
    nodes = GraphNodeSerializer(many=True)
    edges = EdgeSerializer(many=True)
    mermaid = serializers.CharField(required=False, help_text="With `?format=mermaid`.")


_FORMAT = OpenApiParameter(
    "format", OpenApiTypes.STR, enum=FORMATS, default="json", description="json, or mermaid too."
)


class RunGraph(Endpoint):
    """The graph of one run."""

    words = {"GET": [_FORMAT]}

    @extend_schema(responses=RunGraphSerializer)
    def get(self, request: Request, run_id: UUID) -> Response:
        """Show tasks and edges with their present status, items of `for_each` too."""
        run, tasks = run_of(self, run_id), _tasks_of(run_id)
        wanted = request.query_params.get("format", "json")
        if wanted not in FORMATS:
            problem = Problem(unknown_word("format", wanted, list(FORMATS)), "format")
            raise InvalidError("The graph cannot be shown like that.", [problem])
        lines = [{"from": above, "to": below} for above, below in edges(tasks)]
        graph = {"run_id": run.pk, "status": run.status, "nodes": tasks, "edges": lines}
        if wanted == "mermaid":
            graph["mermaid"] = mermaid(tasks)
        return Response(RunGraphSerializer(graph).data)


class TimedTaskSerializer(serializers.ModelSerializer[Task]):
    """When a task was what."""

    attempts = serializers.SerializerMethodField()

    class Meta:
        model = Task
        fields = [
            "id",
            "key",
            "uses",
            "capability",
            "status",
            "created_at",
            "ready_at",
            "started_at",
            "completed_at",
            "attempts",
        ]

    @extend_schema_field(TrySerializer(many=True))
    def get_attempts(self, task: Task) -> list[dict[str, Any]]:
        """Return every try, oldest first."""
        return list(TrySerializer(self.context["tries"][task.pk], many=True).data)


class TimelineSerializer(serializers.Serializer[Any]):
    """What happened when, in one run."""

    run_id = serializers.UUIDField()
    status = serializers.ChoiceField(RUN.statuses)
    created_at = serializers.DateTimeField()
    completed_at = serializers.DateTimeField(allow_null=True)
    tasks = TimedTaskSerializer(many=True, help_text="In the order in which they began.")


class RunTimeline(Endpoint):
    """The timeline of one run."""

    @extend_schema(responses=TimelineSerializer)
    def get(self, request: Request, run_id: UUID) -> Response:
        """Show when each task was ready, began and ended, and who tried it when."""
        run, tasks = run_of(self, run_id), _tasks_of(run_id)
        # What has not begun yet comes last, in the order of the graph.
        began = sorted(
            tasks, key=lambda task: (task.started_at is None, task.started_at or run.created_at)
        )
        shown = {
            "run_id": run.pk,
            "status": run.status,
            "created_at": run.created_at,
            "completed_at": run.completed_at,
            "tasks": began,
        }
        return Response(TimelineSerializer(shown, context={"tries": tries_of(tasks)}).data)


def _tasks_of(run_id: UUID) -> list[Task]:
    tasks = Task.objects.filter(run=run_id).exclude(uses="end").order_by("number")
    return list(tasks.defer("inputs", "outputs", "outputs_template", "result", "items"))


urlpatterns = [
    path("tasks/<uuid:task_id>/attempts", Attempts.as_view()),
    path("tasks/<uuid:task_id>/events", TaskEvents.as_view()),
    path("runs/<uuid:run_id>/events", RunEvents.as_view()),
    path("runs/<uuid:run_id>/approvals", RunApprovals.as_view()),
    path("runs/<uuid:run_id>/graph", RunGraph.as_view()),
    path("runs/<uuid:run_id>/timeline", RunTimeline.as_view()),
]
