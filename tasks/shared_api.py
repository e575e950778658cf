"""REST: the shared context of a run."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

from django.http import Http404
from django.urls import path
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from opscore.api.auth import key_of
from opscore.api.endpoint import Endpoint, StrictSerializer
from opscore.errors import InvalidError, Problem
from tasks import shared
from tasks.models import Run, Task
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
        "agent's name, and 409 (`attempt_over`) is the answer once the attempt is over."
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
        return Response({"entries": [entry.as_dict() for entry in shared.entries(run_id)]})


class SharedEntry(Endpoint):
    """One entry of a run's shared context."""

    scopes = {"GET": READERS, "PUT": WRITERS, "DELETE": WRITERS}
    session_methods = ("GET", "PUT", "DELETE")

    @extend_schema(responses=EntrySerializer)
    def get(self, request: Request, run_id: UUID, key: str) -> Response:
        """Show an entry."""
        run_for(self, run_id)
        entry = shared.get(run_id, key)
        if entry is None:
            raise Http404(f"The run's context has no entry {key!r}.")
        return Response(entry.as_dict())

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
        return Response(entry.as_dict(), status=201 if is_new else 200)

    @extend_schema(parameters=[ATTEMPT, _IF_VERSION], responses={204: None})
    def delete(self, request: Request, run_id: UUID, key: str) -> Response:
        """Remove an entry; 404 when there is none, 409 as for PUT."""
        writer = writer_of(self, run_for(self, run_id))
        if not shared.delete(run_id, key, if_version=_if_version(request), writer=writer):
            raise Http404(f"The run's context has no entry {key!r}.")
        return Response(status=204)


def run_for(view: Endpoint, run_id: UUID) -> Run:
    """Return a run of the key's project, without what may be large. Raises Http404.

    The key of an attempt sees the attempt's own run only, that of a session the runs it works for.
    """
    runs = Run.objects.filter(project=view.project, pk=run_id)
    if mine := key_of(view.request).attempt:
        runs = runs.filter(tasks__id=mine[0])
    if view.own_session is not None:
        held = Task.objects.filter(session_id=view.own_session, status="running")
        runs = runs.filter(pk__in=held.values("run_id"))
    found = runs.defer("inputs").first()
    if found is None:
        raise Http404(f"There is no run {run_id}.")
    return found


def writer_of(view: Endpoint, run: Run) -> Writer:
    """Return who writes: the attempt that the header names, else the key.

    Raises InvalidError, and AttemptOverError when the attempt is over.
    """
    text = view.request.headers.get(HEADER)
    mine = key_of(view.request).attempt
    by_key = Writer(f"key:{view.actor}")
    if text is None and mine is None:
        return by_key
    task_id, fence = mine or _attempt(text or "")
    writer = attempt_writer(view.project.pk, task_id, fence)
    if writer is None or not _is_own(view, task_id):
        stale = Writer(by_key.name, task_id, fence)
        note_refused(run, stale, f"{view.request.method} {view.request.path_info}"[:200])
        raise AttemptOverError
    return writer


def _is_own(view: Endpoint, task_id: UUID) -> bool:
    """Tell whether the key may write for the task: that of a session for its own only."""
    mine = view.own_session
    return mine is None or Task.objects.filter(pk=task_id, session_id=mine).exists()


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
