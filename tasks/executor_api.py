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

from agents import bound_keys, queues, sessions
from agents.models import AgentSession
from opscore import vault
from opscore.api.auth import key_of
from opscore.api.endpoint import Endpoint, Listing
from opscore.api.problems import translate
from opscore.api.waiting import EmptyResponse, Patience, WaitingEndpoint, is_shared
from opscore.config import load_config
from opscore.errors import ConflictError, ForbiddenError, InvalidError, Problem
from tasks import attendance, claims, reports, tasklogs, taskprogress, writers
from tasks.dispatch import READY_CHANNEL
from tasks.executor_serializers import (
    ClaimedTasksSerializer,
    ClaimSerializer,
    FenceSerializer,
    HeartbeatAnswerSerializer,
    HeartbeatSerializer,
    LogLinesSerializer,
    ReportSerializer,
    TellProgressSerializer,
)
from tasks.models import Attempt, Task, TaskLog
from tasks.serializers import LogSerializer


class Claim(WaitingEndpoint):
    """Claims of one session."""

    scopes = {"POST": "agent"}
    session_methods = ("POST",)
    answers_secrets = True  # the inputs of tasks
    channel = READY_CHANNEL

    @extend_schema(request=ClaimSerializer, responses=ClaimedTasksSerializer)
    def post(self, request: Request, session_id: UUID) -> Response:
        """Take tasks that the agent is able to do; waits up to `wait_s` for the first.

        While it waits it is a sign of life, as a heartbeat is. 409 when the session has ended: begin a new one.
        """
        wanted = self.checked(ClaimSerializer)
        session = open_session(self, session_id)
        limit, concurrency = _left(session, wanted["limit"]), session.agent.concurrency
        # Of a few tasks that come at once each agent that is idle gets one before any gets two.
        most = min(limit, 1) if is_shared(request) else limit
        claimed = claims.poll(session_id, most, concurrency) if most else []
        if claimed:
            if self.own_session is not None:
                sessions.count_claims(session_id, len(claimed))
            response = Response({"tasks": [task.as_dict() for task in claimed]})
            ids = [task.id for task in claimed]
            response.undo = lambda: claims.put_back(ids, session_id)  # type: ignore[attr-defined]
            return response
        patience = Patience(
            READY_CHANNEL,
            [*session.agent.capabilities, queues.own(session.agent_id)],
            wanted["wait_s"],
            kind=attendance.kind_of(session),
            look_out=attendance.look_out,
            ticket=attendance.present(session, key_of(request).pk),
            load=attendance.load_of(session, limit),
        )
        return EmptyResponse({"tasks": []}, patience)


def _left(session: AgentSession, limit: int) -> int:
    """Return how many of so many tasks a session may have before its process is recycled."""
    if session.max_claims is None:
        return limit
    return max(min(limit, session.max_claims - session.claims), 0)


class Heartbeat(Endpoint):
    """Heartbeats of one session."""

    scopes = {"POST": "agent"}
    session_methods = ("POST",)

    @extend_schema(request=HeartbeatSerializer, responses=HeartbeatAnswerSerializer)
    def post(self, request: Request, session_id: UUID) -> Response:
        """Say that the executor lives, and with which tasks; 409 when its session has ended."""
        open_session(self, session_id)
        told = self.checked(HeartbeatSerializer).get("tasks")
        if not sessions.beat([session_id], by_program=True):
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
        if not _is_mine(self, task):
            raise ConflictError(reports.REFUSED)
        try:
            said = self.checked(ReportSerializer)
            _check_attempt(self, task_id, said["fence"])
            self._record(task, said)
        except (InvalidError, serializers.ValidationError) as error:
            _note_invalid(task, error, self.actor)
            raise
        return Response(status=204)

    def _record(self, task: Task, said: Mapping[str, Any]) -> None:
        try:
            self._write(task, said)
        except ConflictError:
            _note_refused(task, said, self.actor)
            raise

    def _write(self, task: Task, said: Mapping[str, Any]) -> None:
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
        message = vault.redactor(task.project_id).text(said["message"])
        fraction = said.get("fraction")
        if not taskprogress.tell(task_id, said["fence"], fraction=fraction, message=message):
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
    orderings = {"at": "pk"}

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
        tasklogs.append(task.project_id, task_id, task.attempt, lines)
        return Response(status=204)


def _note_refused(task: Task, said: Mapping[str, Any], actor: str) -> None:
    """Keep that a report came too late or twice: nothing else of it is kept."""
    claims.let_go([task.pk], said["fence"])
    data = {"fence": said["fence"], "status": said["status"], "task": task.status}
    writers.note("report.refused", task.run_id, task.pk, actor=actor, data=data)


def _note_invalid(task: Task, error: Exception, actor: str) -> None:
    """Keep that a report could not be read: whoever sent it may never notice."""
    failure = translate(error)
    wrong = "; ".join(map(str, failure.problems)) if failure else ""
    message = f"{failure.detail if failure else error} {wrong}".strip()
    data = {"message": message[:500], "task": task.status}
    writers.note("report.invalid", task.run_id, task.pk, actor=actor, data=data)


def _is_mine(view: Endpoint, task: Task) -> bool:
    """Tell whether the key may speak for the task: a bound one for what its own sessions hold."""
    return bound_keys.may_speak_for(view, task.session_id)


def _check_attempt(view: Endpoint, task_id: UUID, fence: int) -> None:
    """Raise ForbiddenError when the key is good for another attempt only."""
    mine = key_of(view.request).attempt
    if mine is not None and mine != (task_id, fence):
        raise ForbiddenError("This key is good for another attempt only.")


def open_session(view: Endpoint, session_id: UUID) -> AgentSession:
    """Return an open session that the key may act for.

    Raises ConflictError, Http404; ForbiddenError where the key is another session's.
    """
    session = sessions.live(session_id)
    if session is not None and bound_keys.is_own(view, session):
        return session
    if bound_keys.own_sessions(view).filter(pk=session_id).exists():
        raise _ended(session_id)
    raise bound_keys.missing(view, session_id)


def _ended(session_id: UUID) -> ConflictError:
    return ConflictError(f"The session {session_id} has ended; begin a new one.")


def _of_project(view: Endpoint, task_id: UUID) -> Task:
    mine = key_of(view.request).attempt
    if mine is not None and mine[0] != task_id:
        raise _no_task(task_id)
    found = Task.objects.filter(project=view.project, pk=task_id).defer("result", "inputs").first()
    if found is None or not (view.own_agent is None or _was_mine(view, found)):
        raise _no_task(task_id)
    return found


def _no_task(task_id: UUID) -> Http404:
    return Http404(f"There is no task {task_id}.")


def _was_mine(view: Endpoint, task: Task) -> bool:
    """Tell whether the key's agent has the task or had it: a late report is no foreign one."""
    had = Attempt.objects.filter(
        task=task, session_id__in=bound_keys.own_sessions(view).values("id")
    )
    return _is_mine(view, task) or had.exists()


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
