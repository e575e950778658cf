"""REST: submit, list, show and cancel tasks and runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import django_filters
from django.db.models import QuerySet
from django.http import Http404
from django.urls import include, path
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agents.models import AgentSession
from opscore.api.endpoint import Endpoint, Listing, StrictSerializer, path_of
from opscore.api.watching import WAIT
from opscore.errors import InvalidError, Problem
from opscore.ids import first_uuid7
from opscore.loading import load
from opscore.models import Project
from tasks import control, submission
from tasks.models import Run, Task
from tasks.serializers import (
    RUN_SHOWN,
    TASK_SHOWN,
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
from tasks.submit_api import SUBMIT, node_of
from tasks.waiting import WatchedRun, WatchedTask

#: How far the clocks of those who make ids may be from the database's.
_SKEW_S = 600.0
#: The last second of the year 9999.
_LAST_S = 253402300799.0


class WordsFilter(django_filters.BaseInFilter, django_filters.ChoiceFilter):
    """One or more known words, separated by commas."""


class CreatedFilter(django_filters.IsoDateTimeFilter):
    """Rows since a time, or until before it, found by their ids, which begin with the time."""

    def filter(self, qs: QuerySet[Any], value: datetime | None) -> QuerySet[Any]:
        """Narrow by id first, which is indexed; then by the database's own time, which counts."""
        if value is None:
            return qs
        moment = min(max(value.timestamp(), 0.0), _LAST_S)
        # PostgreSQL knows fewer offsets than Python does.
        at = datetime.fromtimestamp(moment, UTC)
        if str(self.field_name).endswith("since"):
            return qs.filter(pk__gte=first_uuid7(moment - _SKEW_S), created_at__gte=at)
        return qs.filter(pk__lt=first_uuid7(moment + _SKEW_S), created_at__lt=at)


class TaskFilter(django_filters.FilterSet):
    """Filters of the list of tasks."""

    status = WordsFilter(choices=[(name, name) for name in TASK.statuses], lookup_expr="in")
    run = django_filters.UUIDFilter(field_name="run_id")
    workflow = django_filters.CharFilter(field_name="run__workflow")
    capability = django_filters.CharFilter()
    key = django_filters.CharFilter()
    uses = django_filters.CharFilter(help_text="The executor: agent, approval, wait, …")
    created_since = CreatedFilter()
    created_until = CreatedFilter()
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
    version = django_filters.CharFilter()
    rerun_of = django_filters.UUIDFilter()
    fairness_key = django_filters.CharFilter()
    created_since = CreatedFilter()
    created_until = CreatedFilter()
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


class Tasks(WatchedTask, Listing):
    """The tasks of the project."""

    waits = "POST"
    words = {"POST": [WAIT]}
    serializer_class = TaskSerializer
    filterset_class = TaskFilter

    def newest(self) -> QuerySet[Any]:
        """Return the project's tasks, without the engine's own end nodes."""
        mine = Task.objects.filter(project=self.project).exclude(uses="end")
        return mine.only(
            "session_id", *(name for name in TaskSerializer.Meta.fields if name != "agent")
        )

    def context_of(self, rows: Sequence[Task]) -> Mapping[str, Any]:
        """Look up the agents of the whole page in one query."""
        return {"agents": agents_of(rows)}

    @extend_schema(
        request=SubmitSerializer,
        responses={201: TaskDetailSerializer},
        examples=[SUBMIT],
    )
    def post(self, request: Request) -> Response:
        """Submit one task on its own."""
        data = self.checked(SubmitSerializer)
        priority = data.pop("priority", 5)
        task = submission.submit_task(
            self.project,
            node_of(data),
            priority=priority,
            actor=self.actor,
            fairness_key=data.get("fairness_key", ""),
        )
        headers = {"Location": path_of(request, "tasks", task.pk)}
        return Response(task_shown(task), status=201, headers=headers)


class OneTask(WatchedTask):
    """One task."""

    shows = TASK_SHOWN
    words = {"GET": [WAIT]}

    @extend_schema(responses=TaskDetailSerializer)
    def get(self, request: Request, task_id: UUID) -> Response:
        """Show everything about a task: status, attempts, times, result, error."""
        return Response(task_shown(_task(self.project, task_id), self.only))


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


class OneRun(WatchedRun):
    """One run."""

    words = {"GET": [WAIT]}

    @extend_schema(responses=RunDetailSerializer)
    def get(self, request: Request, run_id: UUID) -> Response:
        """Show a run with its tasks in topological order, and its outputs."""
        return Response(run_shown(run_of(self.project, run_id), self.only))


class CancelBodySerializer(StrictSerializer):
    """How a run is cancelled."""

    force = serializers.BooleanField(
        default=False, help_text="Leave out what the run declares for its end: undo, finally."
    )


class CancelRun(Endpoint):
    """Cancel of one run."""

    shows = RUN_SHOWN

    @extend_schema(request=CancelBodySerializer, responses=RunDetailSerializer)
    def put(self, request: Request, run_id: UUID) -> Response:
        """Cancel a run, all its live tasks and the runs below it; 409 when it has ended."""
        run_of(self.project, run_id)
        said = self.checked(CancelBodySerializer)
        control.cancel_run(run_id, actor=self.actor, force=said["force"])
        return Response(run_shown(run_of(self.project, run_id), self.only))


def run_of(project: Project, run_id: UUID) -> Run:
    """Return a run of the project; raises Http404."""
    try:
        return load(Run, id=run_id, project_id=project.pk)
    except Run.DoesNotExist:
        raise Http404(f"There is no run {run_id}.") from None


def _task(project: Project, task_id: UUID) -> Task:
    try:
        return load(Task, id=task_id, project_id=project.pk)
    except Task.DoesNotExist:
        raise Http404(f"There is no task {task_id}.") from None


def _uuids(text: str) -> list[UUID]:
    try:
        return [UUID(text)]
    except ValueError:
        return []


urlpatterns = [
    path("tasks", Tasks.as_view()),
    path("", include("tasks.submit_api")),
    path("tasks/<uuid:task_id>", OneTask.as_view()),
    path("tasks/<uuid:task_id>/cancel", CancelTask.as_view()),
    path("runs", Runs.as_view()),
    path("runs/<uuid:run_id>", OneRun.as_view()),
    path("runs/<uuid:run_id>/cancel", CancelRun.as_view()),
    path("", include("tasks.executor_api")),
    path("", include("tasks.control_api")),
    path("", include("tasks.why_api")),
    path("", include("tasks.shared_api")),
    path("", include("tasks.messages_api")),
    path("", include("tasks.records_api")),
    path("", include("tasks.streams_api")),
]
