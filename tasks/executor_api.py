"""The executor protocol over HTTP: claim with long-poll, heartbeat, report, logs; all fenced."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import django_filters
from django.db.models import QuerySet
from django.http import Http404
from django.urls import path
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agents import sessions
from agents.api import CLAIM_WAIT_MAX_S, refuse_foreign
from agents.models import AgentSession
from opscore.api.auth import key_of
from opscore.api.endpoint import Endpoint, Listing, StrictSerializer
from opscore.api.schema import name_enum
from opscore.api.waiting import EmptyResponse, Patience, WaitingEndpoint
from opscore.config import load_config
from opscore.errors import ConflictError, ForbiddenError, InvalidError, Problem
from opscore.models import Event
from tasks import attendance, claims, reports, tasklogs, taskprogress
from tasks.dispatch import READY_CHANNEL
from tasks.models import Task, TaskLog
from tasks.serializers import ErrorValueSerializer, LogSerializer

STREAMS = ("log", "stdout", "stderr")
OUTCOMES = ("completed", "failed")
name_enum("ReportedStatus", OUTCOMES)
name_enum("LogStream", STREAMS)


class ClaimSerializer(StrictSerializer):
    """How many tasks an executor wants and how long it would wait for the first."""

    limit = serializers.IntegerField(min_value=1, max_value=100, default=1)
    wait_s = serializers.FloatField(min_value=0, max_value=CLAIM_WAIT_MAX_S, default=0)


class ClaimedSerializer(serializers.Serializer[Any]):
    """One attempt that the session now holds."""

    id = serializers.UUIDField()
    run_id = serializers.UUIDField()
    key = serializers.CharField()
    capability = serializers.CharField()
    attempt = serializers.IntegerField()
    fence = serializers.IntegerField(help_text="Send it with every report and log.")
    priority = serializers.IntegerField()
    timeout_s = serializers.FloatField(allow_null=True)
    inputs = serializers.DictField()
    idempotency_key = serializers.CharField(help_text="The same for every attempt of the task.")


class ClaimedTasksSerializer(serializers.Serializer[Any]):
    """What was claimed; empty when nothing came up in time."""

    tasks = ClaimedSerializer(many=True)


class HeldSerializer(StrictSerializer):
    """A task that the executor has."""

    id = serializers.UUIDField()
    fence = serializers.IntegerField()


class HeartbeatSerializer(StrictSerializer):
    """All tasks that the executor has; a claim whose answer got lost is missing here."""

    tasks = serializers.ListField(child=HeldSerializer(), required=False, max_length=1000)


class HeartbeatAnswerSerializer(serializers.Serializer[Any]):
    """What the executor should stop doing."""

    cancelled = serializers.ListField(
        child=serializers.UUIDField(), help_text="Stop these: cancelled, timed out or taken away."
    )


class ReportSerializer(StrictSerializer):
    """How an attempt ended."""

    fence = serializers.IntegerField()
    status = serializers.ChoiceField(OUTCOMES)
    result = serializers.JSONField(required=False, allow_null=True, help_text="Any JSON.")
    error = ErrorValueSerializer(required=False)


class LogLinesSerializer(StrictSerializer):
    """Lines for an attempt's log."""

    fence = serializers.IntegerField()
    lines = serializers.ListField(
        child=serializers.CharField(allow_blank=True, trim_whitespace=False), max_length=1000
    )
    stream = serializers.ChoiceField(STREAMS, default="log")


class TellProgressSerializer(StrictSerializer):
    """How far an attempt is."""

    fence = serializers.IntegerField()
    fraction = serializers.FloatField(
        min_value=0, max_value=1, required=False, allow_null=True, help_text="null: unknown."
    )
    message = serializers.CharField(
        max_length=500, required=False, default="", allow_blank=True, help_text="Of what."
    )


class Claim(WaitingEndpoint):
    """Claims of one session."""

    scopes = {"POST": "agent"}
    session_methods = ("POST",)
    channel = READY_CHANNEL

    @extend_schema(request=ClaimSerializer, responses=ClaimedTasksSerializer)
    def post(self, request: Request, session_id: UUID) -> Response:
        """Take tasks that the agent is able to do; waits up to `wait_s` for the first.

        While it waits it is a sign of life, as a heartbeat is. 409 when the session has ended: begin a new one.
        """
        wanted = self.checked(ClaimSerializer)
        session = open_session(self, session_id)
        claimed = claims.poll(session_id, wanted["limit"])
        if claimed:
            if self.own_session is not None:
                sessions.count_claims(session_id, len(claimed))
            response = Response({"tasks": [task.as_dict() for task in claimed]})
            ids = [task.id for task in claimed]
            response.undo = lambda: claims.put_back(ids, session_id)  # type: ignore[attr-defined]
            return response
        patience = Patience(
            READY_CHANNEL,
            session.agent.capabilities,
            wanted["wait_s"],
            kind=attendance.kind_of(session),
            look_out=attendance.look_out,
            ticket=attendance.present(session, key_of(request).pk),
        )
        return EmptyResponse({"tasks": []}, patience)


class Heartbeat(Endpoint):
    """Heartbeats of one session."""

    scopes = {"POST": "agent"}
    session_methods = ("POST",)

    @extend_schema(request=HeartbeatSerializer, responses=HeartbeatAnswerSerializer)
    def post(self, request: Request, session_id: UUID) -> Response:
        """Say that the executor lives, and with which tasks; 409 when its session has ended."""
        open_session(self, session_id)
        told = self.checked(HeartbeatSerializer).get("tasks")
        if not sessions.beat([session_id]):
            raise _ended(session_id)
        mine = dict(
            Task.objects.filter(session_id=session_id, status="running").values_list("id", "fence")
        )
        if told is not None:
            claims.put_back(_unknown(mine, told, session_id), session_id)
        gone = [str(task["id"]) for task in told or () if not _alive(task, mine)]
        return Response({"cancelled": gone})


class Report(Endpoint):
    """Reports about one task."""

    scopes = {"POST": "agent or attempt"}
    session_methods = ("POST",)

    @extend_schema(request=ReportSerializer, responses={204: None})
    def post(self, request: Request, task_id: UUID) -> Response:
        """Record how an attempt ended; 409 when it is over or was given to somebody else."""
        task = _of_project(self, task_id)
        said = self.checked(ReportSerializer)
        _check_attempt(self, task_id, said["fence"])
        if not _is_mine(self, task):
            raise ConflictError(reports.REFUSED)
        try:
            self._record(task, said)
        except ConflictError:
            _note_refused(task, said, self.actor)
            raise
        return Response(status=204)

    def _record(self, task: Task, said: Mapping[str, Any]) -> None:
        if task.status == "waiting":
            # Its fence is the platform's own.
            raise ConflictError(reports.REFUSED)
        task_id = task.pk
        if said["status"] == "completed":
            reports.complete(task_id, said["fence"], said.get("result"))
        else:
            if "error" not in said:
                problem = Problem("say why: {type, message, retryable}", "error")
                raise InvalidError("A failed attempt needs an error.", [problem])
            reports.fail(task_id, said["fence"], said["error"])


class FenceSerializer(StrictSerializer):
    """Proof of an attempt."""

    fence = serializers.IntegerField()


class Alive(Endpoint):
    """Signs of life of one attempt."""

    scopes = {"POST": "agent or attempt"}

    @extend_schema(request=FenceSerializer, responses={204: None})
    def post(self, request: Request, task_id: UUID) -> Response:
        """Say that the attempt is worked on; 409 when it is over: stop.

        For agents of kind http that answered 202; others beat with their session.
        """
        _of_project(self, task_id)
        fence = self.checked(FenceSerializer)["fence"]
        _check_attempt(self, task_id, fence)
        if not claims.beat(task_id, fence):
            claims.let_go([task_id], fence)
            raise ConflictError("This attempt is over: stop working on it.")
        return Response(status=204)


class TellProgress(Endpoint):
    """Progress of one task."""

    scopes = {"POST": "agent or attempt"}
    session_methods = ("POST",)

    @extend_schema(request=TellProgressSerializer, responses={204: None})
    def post(self, request: Request, task_id: UUID) -> Response:
        """Say how far the attempt is; the task shows the latest. 409: old fence."""
        task = _of_project(self, task_id)
        said = self.checked(TellProgressSerializer)
        _check_attempt(self, task_id, said["fence"])
        if not _is_mine(self, task):
            raise ConflictError("The progress is refused: this attempt is over.")
        told = {"fraction": said.get("fraction"), "message": said["message"]}
        if not taskprogress.tell(task_id, said["fence"], **told):
            raise ConflictError("The progress is refused: this attempt is over.")
        return Response(status=204)


class LogFilter(django_filters.FilterSet):
    """Filters of a task's log."""

    attempt = django_filters.NumberFilter()
    stream = django_filters.CharFilter()

    class Meta:
        model = TaskLog
        fields: list[str] = []


class Logs(Listing):
    """The log of one task."""

    scopes = {"POST": "agent or attempt"}
    session_methods = ("POST",)
    serializer_class = LogSerializer
    filterset_class = LogFilter

    def newest(self) -> QuerySet[Any]:
        """Return the task's lines."""
        return TaskLog.objects.filter(task=_of_project(self, self.kwargs["task_id"]))

    @extend_schema(request=LogLinesSerializer, responses={204: None})
    def post(self, request: Request, task_id: UUID) -> Response:
        """Add lines to the attempt's log; those above the limit are left out. 409: old fence."""
        task = _of_project(self, task_id)
        said = self.checked(LogLinesSerializer)
        _check_attempt(self, task_id, said["fence"])
        if task.status != "running" or task.fence != said["fence"] or not _is_mine(self, task):
            raise ConflictError("The lines are refused: this attempt is over.")
        lines = [(said["stream"], line) for line in said["lines"]]
        tasklogs.append(task_id, task.attempt, lines)
        return Response(status=204)


def _note_refused(task: Task, said: Mapping[str, Any], actor: str) -> None:
    """Keep that a report came too late or twice: nothing else of it is kept."""
    claims.let_go([task.pk], said["fence"])
    Event.objects.create(
        project_id=task.project_id,
        kind="report.refused",
        run_id=task.run_id,
        task_id=task.pk,
        actor=actor,
        data={"fence": said["fence"], "status": said["status"], "task": task.status},
    )


def _is_mine(view: Endpoint, task: Task) -> bool:
    """Tell whether the key may speak for the task: one of a single session for its own only."""
    return view.own_session in (None, task.session_id)


def _check_attempt(view: Endpoint, task_id: UUID, fence: int) -> None:
    """Raise ForbiddenError when the key is good for another attempt only."""
    mine = key_of(view.request).attempt
    if mine is not None and mine != (task_id, fence):
        raise ForbiddenError("This key is good for another attempt only.")


def open_session(view: Endpoint, session_id: UUID) -> AgentSession:
    """Return an open session of the key's project. Raises ConflictError, Http404."""
    refuse_foreign(view, session_id)
    session = sessions.live(session_id)
    if session is not None and session.project_id == view.project.pk:
        return session
    if AgentSession.objects.filter(pk=session_id, project=view.project).exists():
        raise _ended(session_id)
    raise Http404(f"There is no session {session_id}.")


def _ended(session_id: UUID) -> ConflictError:
    return ConflictError(f"The session {session_id} has ended; begin a new one.")


def _of_project(view: Endpoint, task_id: UUID) -> Task:
    found = Task.objects.filter(project=view.project, pk=task_id).defer("result", "inputs").first()
    if found is None:
        raise Http404(f"There is no task {task_id}.")
    return found


def _alive(told: Mapping[str, Any], mine: Mapping[UUID, int]) -> bool:
    """Tell whether the executor may go on; its beat is the attempt's sign of life."""
    return mine.get(told["id"]) == told["fence"] and claims.beat(told["id"], told["fence"])


def _unknown(
    mine: Mapping[UUID, int], told: Collection[Mapping[str, Any]], session_id: UUID
) -> list[UUID]:
    """Return what the session holds without its executor knowing: the claim's answer got lost."""
    missing = set(mine) - {task["id"] for task in told}
    # Younger ones may still be on their way to the executor.
    before = timezone.now() - timedelta(seconds=load_config().session_ttl_s / 3)
    lost = Task.objects.filter(pk__in=missing, session_id=session_id, started_at__lt=before)
    return sorted(lost.values_list("id", flat=True))


urlpatterns = [
    path("sessions/<uuid:session_id>/claim", Claim.as_view()),
    path("sessions/<uuid:session_id>/heartbeat", Heartbeat.as_view()),
    path("tasks/<uuid:task_id>/report", Report.as_view()),
    path("tasks/<uuid:task_id>/heartbeat", Alive.as_view()),
    path("tasks/<uuid:task_id>/logs", Logs.as_view()),
    path("tasks/<uuid:task_id>/progress", TellProgress.as_view()),
]
