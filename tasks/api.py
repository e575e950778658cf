"""REST: submit, list, show and cancel tasks and runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, cast
from uuid import UUID

import django_filters
from django.db.models import Count, QuerySet
from django.http import Http404
from django.urls import include, path
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agents import workload
from agents.models import AgentSession
from opscore.api.endpoint import Endpoint, Listing, StrictSerializer, path_of
from opscore.api.idempotency import idempotent
from opscore.errors import InvalidError, Problem
from opscore.models import Project
from tasks import control, submission
from tasks.graph import Node
from tasks.models import Run, Task
from tasks.retries import RetryPolicy
from tasks.serializers import (
    RunDetailSerializer,
    RunSerializer,
    SubmitSerializer,
    TaskDetailSerializer,
    TaskSerializer,
    agents_of,
    run_shown,
    task_shown,
)
from tasks.states import RUN, TASK


class WordsFilter(django_filters.BaseInFilter, django_filters.ChoiceFilter):
    """One or more known words, separated by commas."""


class TaskFilter(django_filters.FilterSet):
    """Filters of the list of tasks."""

    status = WordsFilter(choices=[(name, name) for name in TASK.statuses], lookup_expr="in")
    run = django_filters.UUIDFilter(field_name="run_id")
    workflow = django_filters.CharFilter(field_name="run__workflow")
    capability = django_filters.CharFilter()
    agent = django_filters.CharFilter(method="by_agent", help_text="Id or name.")

    class Meta:
        model = Task
        fields: list[str] = []

    def by_agent(self, tasks: QuerySet[Task], name: str, ref: str) -> QuerySet[Task]:
        """Keep tasks whose last attempt this agent has or had."""
        sessions = AgentSession.objects.filter(agent__name=ref) | AgentSession.objects.filter(
            agent__in=_uuids(ref)
        )
        return tasks.filter(session_id__in=sessions.values("id"))


class RunFilter(django_filters.FilterSet):
    """Filters of the list of runs."""

    status = WordsFilter(choices=[(name, name) for name in RUN.statuses], lookup_expr="in")
    workflow = django_filters.CharFilter()
    parent = django_filters.Filter(method="by_parent")

    class Meta:
        model = Run
        fields: list[str] = []

    @extend_schema_field(
        {
            "oneOf": [{"type": "string", "format": "uuid"}, {"type": "string", "enum": ["none"]}],
            "description": "The id of a run: those that its tasks started; `none`: those that no "
            "task did.",
        }
    )
    def by_parent(self, runs: QuerySet[Run], name: str, ref: str) -> QuerySet[Run]:
        """Keep the runs one level below a run, or the top ones; raises InvalidError."""
        if ref == "none":
            return runs.filter(parent_task_id=None)
        parents = _uuids(ref)
        if not parents:
            problem = Problem(f"must be `none` or the id of a run, not {ref!r}", name)
            raise InvalidError("The list cannot be filtered like that.", [problem])
        above = Task.objects.filter(run__in=parents)
        return runs.filter(parent_task_id__in=above.values("id"))


class Tasks(Listing):
    """The tasks of the project."""

    serializer_class = TaskSerializer
    filterset_class = TaskFilter

    def newest(self) -> QuerySet[Any]:
        """Return the project's tasks, without the engine's own end nodes."""
        mine = Task.objects.filter(project=self.project).exclude(uses="end")
        return mine.defer("result", "inputs", "outputs", "outputs_template")

    def get_serializer(self, *args: Any, **kwargs: Any) -> Any:
        """Look up the agents of the whole page in one query."""
        if kwargs.get("many") and args:
            kwargs["context"] = {"agents": agents_of(args[0])}
        return super().get_serializer(*args, **kwargs)

    @extend_schema(request=SubmitSerializer, responses={201: TaskDetailSerializer})
    @idempotent
    def post(self, request: Request) -> Response:
        """Submit one task on its own."""
        data = self.checked(SubmitSerializer)
        priority = data.pop("priority", 5)
        node = _node(data)
        task = submission.submit_task(self.project, node, priority=priority, actor=self.actor)
        headers = {"Location": path_of(request, "tasks", task.pk)}
        return Response(task_shown(_task(self.project, task.pk)), status=201, headers=headers)


class OneTask(Endpoint):
    """One task."""

    @extend_schema(responses=TaskDetailSerializer)
    def get(self, request: Request, task_id: UUID) -> Response:
        """Show everything about a task: status, attempts, times, result, error."""
        return Response(task_shown(_task(self.project, task_id)))


class CancelTask(Endpoint):
    """Cancel of one task."""

    @extend_schema(request=None, responses=TaskDetailSerializer)
    def put(self, request: Request, task_id: UUID) -> Response:
        """Cancel a task and skip what depends on it; 409 when it has ended."""
        _task(self.project, task_id)
        control.cancel_task(task_id, actor=self.actor)
        return Response(task_shown(_task(self.project, task_id)))


class Runs(Listing):
    """The runs of the project."""

    serializer_class = RunSerializer
    filterset_class = RunFilter

    def newest(self) -> QuerySet[Any]:
        """Return the project's runs; `?workflow=` (empty) shows all, single tasks too."""
        return Run.objects.filter(project=self.project).defer("inputs")


class OneRun(Endpoint):
    """One run."""

    @extend_schema(responses=RunDetailSerializer)
    def get(self, request: Request, run_id: UUID) -> Response:
        """Show a run with its tasks in topological order, and its outputs."""
        return Response(run_shown(run_of(self.project, run_id)))


class CancelBodySerializer(StrictSerializer):
    """How a run is cancelled."""

    force = serializers.BooleanField(
        default=False, help_text="Leave out what the run declares for its end: undo, finally."
    )


class CancelRun(Endpoint):
    """Cancel of one run."""

    @extend_schema(request=CancelBodySerializer, responses=RunDetailSerializer)
    def put(self, request: Request, run_id: UUID) -> Response:
        """Cancel a run, all its live tasks and the runs below it; 409 when it has ended."""
        run_of(self.project, run_id)
        said = self.checked(CancelBodySerializer)
        control.cancel_run(run_id, actor=self.actor, force=said["force"])
        return Response(run_shown(run_of(self.project, run_id)))


def run_of(project: Project, run_id: UUID) -> Run:
    """Return a run of the project; raises Http404."""
    found = Run.objects.filter(project=project, pk=run_id).first()
    if found is None:
        raise Http404(f"There is no run {run_id}.")
    return found


def _task(project: Project, task_id: UUID) -> Task:
    found = Task.objects.filter(project=project, pk=task_id).first()
    if found is None:
        raise Http404(f"There is no task {task_id}.")
    return found


def _node(data: Mapping[str, Any]) -> Node:
    return Node(
        key=data.get("key", "task"),
        capability=data["capability"],
        requires=tuple(data.get("requires", ())),
        inputs=_literal(data.get("inputs", {})),
        retry=RetryPolicy.from_dict(data.get("retry", {})),
        timeout_s=data.get("timeout_s"),
    )


def _literal(value: Any) -> Any:
    """Return inputs as a template that renders to themselves: a task on its own has no
    expressions, and its inputs may be any text.
    """
    if isinstance(value, str):
        return value.replace("${{", "$${{")
    if isinstance(value, dict):
        return {name: _literal(inner) for name, inner in value.items()}
    return [_literal(inner) for inner in value] if isinstance(value, list) else value


def _uuids(text: str) -> list[UUID]:
    try:
        return [UUID(text)]
    except ValueError:
        return []


def _running(agent_ids: Collection[UUID]) -> dict[UUID, int]:
    """Count running tasks by agent, for the floor below."""
    sessions = dict(
        AgentSession.objects.filter(agent__in=agent_ids, ended_at=None).values_list(
            "id", "agent_id"
        )
    )
    held = Task.objects.filter(status="running", session_id__in=sessions)
    counts: dict[UUID, int] = {}
    for row in held.values("session_id").annotate(tasks=Count("id")):
        agent_id = sessions[cast("UUID", row["session_id"])]
        counts[agent_id] = counts.get(agent_id, 0) + row["tasks"]
    return counts


workload.counted_by(_running)

urlpatterns = [
    path("tasks", Tasks.as_view()),
    path("tasks/<uuid:task_id>", OneTask.as_view()),
    path("tasks/<uuid:task_id>/cancel", CancelTask.as_view()),
    path("runs", Runs.as_view()),
    path("runs/<uuid:run_id>", OneRun.as_view()),
    path("runs/<uuid:run_id>/cancel", CancelRun.as_view()),
    path("", include("tasks.executor_api")),
    path("", include("tasks.control_api")),
]
