"""REST: pause, resume, run again, signals and approvals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import django_filters
from django.db.models import QuerySet
from django.http import Http404
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from opscore import keys
from opscore.api.auth import key_of
from opscore.api.endpoint import Endpoint, Listing, StrictSerializer, path_of
from opscore.api.schema import name_enum
from tasks import control, inbox, reruns
from tasks.models import Pause, Run, Signal, Task
from tasks.serializers import (
    RUN_SHOWN,
    RunDetailSerializer,
    TaskDetailSerializer,
    run_shown,
    task_shown,
)

name_enum("ApprovalDecision", inbox.DECISIONS)


# ------------------------------------------------------------ pause and resume
class PauseRun(Endpoint):
    """Pause of one run."""

    shows = RUN_SHOWN

    @extend_schema(request=None, responses=RunDetailSerializer)
    def post(self, request: Request, run_id: UUID) -> Response:
        """Start nothing new in the run and the runs below it; what runs goes on. 409: ended."""
        run_of(self, run_id)
        control.pause_run(run_id, actor=self.actor)
        return Response(run_shown(run_of(self, run_id), self.only))


class ResumeRun(Endpoint):
    """End of a run's pause."""

    shows = RUN_SHOWN

    @extend_schema(request=None, responses=RunDetailSerializer)
    def post(self, request: Request, run_id: UUID) -> Response:
        """Let a paused run go on at once. 409 when it is neither paused nor running."""
        run_of(self, run_id)
        control.resume_run(run_id, actor=self.actor)
        return Response(run_shown(run_of(self, run_id), self.only))


class PauseSerializer(serializers.ModelSerializer[Pause]):
    """A pause of a workflow or of the whole project."""

    class Meta:
        model = Pause
        fields = ["workflow", "reason", "paused_by", "created_at"]


class PauseBodySerializer(StrictSerializer):
    """What to pause and why."""

    workflow = serializers.CharField(
        max_length=100, required=False, default="", help_text="Empty: everything in the project."
    )
    reason = serializers.CharField(max_length=300, required=False, default="")


class Pauses(Listing):
    """What is paused: workflows, or everything."""

    scopes = {"POST": "write"}
    serializer_class = PauseSerializer

    def newest(self) -> QuerySet[Any]:
        """Return the project's pauses."""
        return Pause.objects.filter(project=self.project)

    @extend_schema(request=PauseBodySerializer, responses={201: PauseSerializer})
    def post(self, request: Request) -> Response:
        """Pause all runs of a workflow, present and future ones, or everything."""
        said = self.checked(PauseBodySerializer)
        control.pause(self.project, said["workflow"], actor=self.actor, reason=said["reason"])
        pause = Pause.objects.get(project=self.project, workflow=said["workflow"])
        return Response(PauseSerializer(pause).data, status=201)


class ResumeBodySerializer(StrictSerializer):
    """Which pause ends."""

    workflow = serializers.CharField(max_length=100, required=False, default="")


class Resume(Endpoint):
    """End of such a pause."""

    @extend_schema(request=ResumeBodySerializer, responses={204: None})
    def post(self, request: Request) -> Response:
        """Let a workflow, or everything, go on; harmless when it was not paused."""
        control.resume(self.project, self.checked(ResumeBodySerializer)["workflow"])
        return Response(status=204)


# ------------------------------------------------------------ again
class RerunSerializer(StrictSerializer):
    """From where a run is done again."""

    vars()["from"] = serializers.ListField(
        child=serializers.CharField(max_length=200),
        required=False,
        min_length=1,
        max_length=1000,
        help_text="Keys of tasks: these and all below are done again. Default: what failed.",
    )
    inputs = serializers.DictField(
        required=False, help_text="New inputs of the run, for what is done again."
    )


class Rerun(Endpoint):
    """Another run of the same graph."""

    shows = RUN_SHOWN

    @extend_schema(request=RerunSerializer, responses={201: RunDetailSerializer})
    def post(self, request: Request, run_id: UUID) -> Response:
        """Start an ended run again as a new run that keeps the results above. 409: it lives."""
        run_of(self, run_id)
        said = self.checked(RerunSerializer)
        run = reruns.rerun(
            run_id, keys=said.get("from"), inputs=said.get("inputs"), actor=self.actor
        )
        headers = {"Location": path_of(request, "runs", run.pk)}
        return Response(run_shown(run, self.only), status=201, headers=headers)


class RedriveSerializer(StrictSerializer):
    """Which failed runs are started again."""

    workflow = serializers.CharField(max_length=100, required=False)
    error_type = serializers.CharField(max_length=200, required=False)
    capability = serializers.CharField(
        max_length=80, required=False, help_text="Runs in which a task of this capability failed."
    )
    since = serializers.DateTimeField(required=False, help_text="Ended at this time or later.")
    until = serializers.DateTimeField(required=False, help_text="Ended before this time.")
    limit = serializers.IntegerField(min_value=1, max_value=reruns.MAX_REDRIVEN, default=100)


class RedrivenSerializer(serializers.ModelSerializer[Run]):
    """A run that was started again."""

    rerun_of = serializers.UUIDField()

    class Meta:
        model = Run
        fields = ["id", "rerun_of", "workflow"]


class RedrivenRunsSerializer(serializers.Serializer[Any]):
    """The new runs."""

    runs = RedrivenSerializer(many=True)


class Redrive(Endpoint):
    """Failed runs, started again in bulk."""

    @extend_schema(request=RedriveSerializer, responses={201: RedrivenRunsSerializer})
    def post(self, request: Request) -> Response:
        """Start failed runs again, each once, oldest first, each from what failed in it."""
        said = self.checked(RedriveSerializer)
        wanted = failed_runs(Run.objects.filter(project=self.project), said)
        started = reruns.redrive(list(wanted[: said["limit"]]), actor=self.actor)
        return Response({"runs": RedrivenSerializer(started, many=True).data}, status=201)


def failed_runs(runs: QuerySet[Run], said: Mapping[str, Any]) -> QuerySet[Any]:
    """Return the ids of failed runs that a filter means and that were not started again yet."""
    again = Run.objects.filter(rerun_of__isnull=False).values("rerun_of")
    runs = runs.filter(status="failed", parent_task_id=None).exclude(id__in=again)
    conditions = {
        "workflow": {"workflow": said.get("workflow")},
        "error_type": {"error__type": said.get("error_type")},
        "since": {"completed_at__gte": said.get("since")},
        "until": {"completed_at__lt": said.get("until")},
    }
    for name, condition in conditions.items():
        if name in said:
            runs = runs.filter(**condition)
    if "capability" in said:
        failed = Task.objects.filter(status="failed", capability=said["capability"])
        runs = runs.filter(id__in=failed.values("run_id"))
    return runs.order_by("completed_at").values_list("id", flat=True)


# ------------------------------------------------------------ signals and approvals
class SignalSerializer(serializers.ModelSerializer[Signal]):
    """Something that was told to a run."""

    run_id = serializers.UUIDField()

    class Meta:
        model = Signal
        fields = ["id", "run_id", "name", "payload", "sent_by", "created_at", "taken_by"]


class SentSignalSerializer(SignalSerializer):
    """A signal that was sent just now."""

    warning = serializers.SerializerMethodField()

    class Meta(SignalSerializer.Meta):
        fields = [*SignalSerializer.Meta.fields, "warning"]

    def get_warning(self, signal: Signal) -> str:
        """Return a sentence when no task of the run waits for this name or can; else ''."""
        return inbox.warning_of(signal)


class SendSignal(Endpoint):
    """Signals to one run."""

    @extend_schema(request=OpenApiTypes.ANY, responses={201: SentSignalSerializer})
    def post(self, request: Request, run_id: UUID, name: str) -> Response:
        """Tell the run something: one task that waits for this name, now or later, takes it.

        The body is the payload, any JSON; none counts as null. 409 when the run has ended. A name
        that no task of the run uses is kept too, and answered with a `warning`.
        """
        run_of(self, run_id)
        empty = not request._request.body  # noqa: SLF001 - "was anything sent at all"
        signal = inbox.send(run_id, name, None if empty else request.data, self.actor)
        signal.refresh_from_db()
        return Response(SentSignalSerializer(signal).data, status=201)


class Signals(Listing):
    """The signals of one run."""

    serializer_class = SignalSerializer

    def newest(self) -> QuerySet[Any]:
        """Return what was told to the run."""
        return Signal.objects.filter(run=run_of(self, self.kwargs["run_id"]))


class SignalTask(Endpoint):
    """Signals to one task."""

    @extend_schema(request=OpenApiTypes.ANY, responses={200: TaskDetailSerializer})
    def post(self, request: Request, task_id: UUID) -> Response:
        """End this task's wait for its signal; 409 when it does not wait for one."""
        task_of(self, task_id)
        empty = not request._request.body  # noqa: SLF001 - "was anything sent at all"
        inbox.send_to_task(task_id, None if empty else request.data, self.actor)
        return Response(task_shown(task_of(self, task_id)))


class ApprovalSerializer(serializers.ModelSerializer[Task]):
    """A task that waits for somebody's decision."""

    task_id = serializers.UUIDField(source="id")
    run_id = serializers.UUIDField()
    workflow = serializers.CharField(source="run.workflow")
    message = serializers.CharField(source="names.approval.message", default="")
    role = serializers.CharField(source="names.approval.role", default="")
    since = serializers.DateTimeField(source="started_at")
    expires_at = serializers.DateTimeField(source="wake_at", allow_null=True)

    class Meta:
        model = Task
        fields = ["task_id", "run_id", "workflow", "key", "message", "role", "since", "expires_at"]


class ApprovalFilter(django_filters.FilterSet):
    """Filters of the list of approvals."""

    run = django_filters.UUIDFilter(field_name="run_id")
    workflow = django_filters.CharFilter(field_name="run__workflow")

    class Meta:
        model = Task
        fields: list[str] = []


class Approvals(Listing):
    """What waits for a decision."""

    serializer_class = ApprovalSerializer
    filterset_class = ApprovalFilter

    def newest(self) -> QuerySet[Any]:
        """Return the project's tasks that wait for an approval."""
        waiting = Task.objects.filter(status="waiting", waits_for="approval")
        return waiting.filter(project=self.project).select_related("run")


class DecisionSerializer(StrictSerializer):
    """A decision."""

    decision = serializers.ChoiceField(inbox.DECISIONS)
    comment = serializers.CharField(max_length=4000, required=False, default="", allow_blank=True)


class DecideApproval(Endpoint):
    """The decision about one task."""

    @extend_schema(request=DecisionSerializer, responses=TaskDetailSerializer)
    def post(self, request: Request, task_id: UUID) -> Response:
        """Approve or reject. 409 when it does not wait for it; 403 without the role it asks for."""
        task_of(self, task_id)
        said = self.checked(DecisionSerializer)
        inbox.decide(
            task_id, said["decision"], by=self.actor, comment=said["comment"], roles=_roles(request)
        )
        return Response(task_shown(task_of(self, task_id)))


def _roles(request: Request) -> set[str] | None:
    """Return the roles that a key stands for; None: all."""
    key = key_of(request)
    if keys.allows(key, "admin"):
        return None
    return {
        role for scope, role in (("read", "viewer"), ("write", "operator")) if scope in key.scopes
    }


def run_of(view: Endpoint, run_id: UUID) -> Run:
    """Return a run of the view's project; raises Http404."""
    found = Run.objects.filter(project=view.project, pk=run_id).first()
    if found is None:
        raise Http404(f"There is no run {run_id}.")
    return found


def task_of(view: Endpoint, task_id: UUID) -> Task:
    """Return a task of the view's project; raises Http404."""
    found = Task.objects.filter(project=view.project, pk=task_id).first()
    if found is None:
        raise Http404(f"There is no task {task_id}.")
    return found


urlpatterns = [
    path("pauses", Pauses.as_view()),
    path("resume", Resume.as_view()),
    path("runs/redrive", Redrive.as_view()),
    path("runs/<uuid:run_id>/pause", PauseRun.as_view()),
    path("runs/<uuid:run_id>/resume", ResumeRun.as_view()),
    path("runs/<uuid:run_id>/rerun", Rerun.as_view()),
    path("runs/<uuid:run_id>/signals", Signals.as_view()),
    path("runs/<uuid:run_id>/signals/<str:name>", SendSignal.as_view()),
    path("tasks/<uuid:task_id>/signal", SignalTask.as_view()),
    path("tasks/<uuid:task_id>/approval", DecideApproval.as_view()),
    path("approvals", Approvals.as_view()),
]
