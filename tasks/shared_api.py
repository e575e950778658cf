"""REST: the shared context of a run."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet
from django.http import Http404
from django.urls import path
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from agents import bound_keys
from agents.models import AgentSession
from opscore import vault
from opscore.api.auth import is_executors, key_of
from opscore.api.endpoint import Endpoint, StrictSerializer
from opscore.errors import ConflictError, InvalidError, Problem
from tasks import shared
from tasks.models import Message, Run, Task
from tasks.writers import AttemptOverError, Writer, attempt_writer, note_refused

#: Whoever takes part in a run: people and programs, and executors.
READERS = "read or agent or attempt"
WRITERS = "write or agent or attempt"
HEADER = "Opscore-Attempt"
_ATTEMPT = re.compile(r"([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})/([0-9]{1,9})")
ATTEMPT = OpenApiParameter(
    HEADER,
    str,
    OpenApiParameter.HEADER,
    description=(
        "`<task id>/<fence>` of the attempt on whose behalf an executor writes: others see the "
        "agent's name, and 409 (`attempt_over`) is the answer once the attempt is over. It must be "
        "an attempt of this run."
    ),
)
_IF_VERSION = OpenApiParameter("if_version", int, description="Only this version.")


class EntrySerializer(serializers.Serializer[Any]):
    """One value of a run's shared context."""

    key = serializers.CharField()
    version = serializers.IntegerField(help_text="Rises with every write and never comes back.")
    value = serializers.JSONField(help_text="Any JSON.")
    updated_at = serializers.DateTimeField()
    updated_by = serializers.CharField(help_text="`agent:<name>` or `key:<name>`.")


class EntriesSerializer(serializers.Serializer[Any]):
    """All of a run's shared context, by key."""

    entries = EntrySerializer(many=True)


class PutEntrySerializer(StrictSerializer):
    """A new value."""

    value = serializers.JSONField(allow_null=True, help_text="Any JSON.")
    if_version = serializers.IntegerField(
        min_value=0,
        max_value=2**63 - 1,
        required=False,
        help_text="Only over this version; 0: only when there is no such entry.",
    )


class SharedContext(Endpoint):
    """The shared context of one run."""

    scopes = {"GET": READERS}
    session_methods = ("GET",)

    @extend_schema(operation_id="runs_context_list", responses=EntriesSerializer)
    def get(self, request: Request, run_id: UUID) -> Response:
        """List all entries."""
        run_for(self, run_id)
        found = shared.entries(run_id)
        return Response({"entries": [shown(self, entry.as_dict(), "value") for entry in found]})


class SharedEntry(Endpoint):
    """One entry of a run's shared context."""

    scopes = {"GET": READERS, "PUT": WRITERS, "DELETE": WRITERS}
    session_methods = ("GET", "PUT", "DELETE")
    words = {"DELETE": [_IF_VERSION]}

    @extend_schema(responses=EntrySerializer)
    def get(self, request: Request, run_id: UUID, key: str) -> Response:
        """Show an entry."""
        run_for(self, run_id)
        entry = shared.get(run_id, key)
        if entry is None:
            raise Http404(f"The run's context has no entry {key!r}.")
        return Response(shown(self, entry.as_dict(), "value"))

    @extend_schema(
        parameters=[ATTEMPT],
        request=PutEntrySerializer,
        responses={200: EntrySerializer, 201: EntrySerializer},
    )
    def put(self, request: Request, run_id: UUID, key: str) -> Response:
        """Write an entry; 201 when it is new.

        409 `version_conflict` with the present `version` (0: none) when `if_version` is another
        one; 409 also when the run has ended; 413 above a bound.
        """
        said = self.checked(PutEntrySerializer)
        entry, is_new = shared.put(
            run_id,
            key,
            said["value"],
            if_version=said.get("if_version"),
            writer=writer_of(self, run_for(self, run_id)),
        )
        answer = shown(self, entry.as_dict(), "value")
        return Response(answer, status=201 if is_new else 200)

    @extend_schema(parameters=[ATTEMPT], responses={204: None})
    def delete(self, request: Request, run_id: UUID, key: str) -> Response:
        """Remove an entry; 404 when there is none, 409 as for PUT."""
        writer = writer_of(self, run_for(self, run_id))
        if not shared.delete(run_id, key, if_version=_if_version(request), writer=writer):
            raise Http404(f"The run's context has no entry {key!r}.")
        return Response(status=204)


def shown(view: Endpoint, row: dict[str, Any], field: str) -> dict[str, Any]:
    """Return a row as the key may see it: to executors as it is, to others with secrets masked.

    Agents hand each other what they need to work, tokens among it; people only look.
    """
    key = key_of(view.request)
    if field not in row or is_executors(view, view.request.method or "", key):
        return row
    return {**row, field: vault.redactor(key.project_id).data(row[field])}


def run_for(view: Endpoint, run_id: UUID) -> Run:
    """Return a run of the key's project, without what may be large.

    The key of an attempt sees the attempt's own run only, that of a session the runs it works for
    and those it holds a message of. Raises Http404, and AttemptOverError once the attempt is over.
    """
    runs = Run.objects.filter(project=view.project, pk=run_id)
    mine = key_of(view.request).attempt
    if mine:
        runs = runs.filter(tasks__id=mine[0])
    if bound_keys.is_bound(view):
        runs = runs.filter(_at_work_for(bound_keys.own_sessions(view).filter(ended_at=None)))
    found = runs.defer("inputs").first()
    if found is None:
        raise Http404(f"There is no run {run_id}.")
    if mine and attempt_writer(view.project.pk, *mine) is None:
        raise _over(view, found, *mine)
    return found


def _at_work_for(sessions: QuerySet[AgentSession]) -> Q:
    ids = sessions.values("id")
    tasks = Task.objects.filter(session_id__in=ids, status="running")
    received = Message.objects.filter(session_id__in=ids, acknowledged_at=None)
    return Q(pk__in=tasks.values("run_id")) | Q(pk__in=received.values("run_id"))


def writer_of(view: Endpoint, run: Run) -> Writer:
    """Return who writes: the attempt that the header names, else the session's agent or the key.

    Raises InvalidError, AttemptOverError when the attempt is over, ConflictError when it belongs
    to another run.
    """
    text = view.request.headers.get(HEADER)
    mine = key_of(view.request).attempt
    if text is None and mine is None:
        return Writer(_name_of(view))
    task_id, fence = mine or _attempt(text or "")
    writer = attempt_writer(view.project.pk, task_id, fence)
    if writer is None or not _is_own(view, task_id):
        raise _over(view, run, task_id, fence)
    if not run.tasks.filter(pk=task_id).exists():
        raise ConflictError(f"The attempt {task_id}/{fence} belongs to another run.")
    return writer


def _name_of(view: Endpoint) -> str:
    agent = bound_keys.agent_of(view)
    return f"agent:{agent.name}" if agent else f"key:{view.actor}"


def _over(view: Endpoint, run: Run, task_id: UUID, fence: int) -> AttemptOverError:
    """Return the answer to somebody whose attempt is over, and keep an event when he writes."""
    if view.request.method != "GET":
        stale = Writer(f"key:{view.actor}", task_id, fence)
        note_refused(run, stale, f"{view.request.method} {view.request.path_info}"[:200])
    return AttemptOverError()


def _is_own(view: Endpoint, task_id: UUID) -> bool:
    """Tell whether the key may write for the task: a bound one for its own only."""
    if not bound_keys.is_bound(view):
        return True
    mine = bound_keys.own_sessions(view).values("id")
    return Task.objects.filter(pk=task_id, session_id__in=mine).exists()


def _attempt(text: str) -> tuple[UUID, int]:
    found = _ATTEMPT.fullmatch(text)
    if found is None:
        problem = Problem("expected <task id>/<fence> as the claim gave them", HEADER)
        raise InvalidError("The attempt cannot be read.", [problem])
    return UUID(found[1]), int(found[2])


def _if_version(request: Request) -> int | None:
    text = request.query_params.get("if_version")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidError("The entry is kept.", [Problem("is no version", "if_version")])
    return int(text)


urlpatterns = [
    path("runs/<uuid:run_id>/context", SharedContext.as_view()),
    path("runs/<uuid:run_id>/context/<str:key>", SharedEntry.as_view()),
]
