"""REST: why a task, or what is live of a run, is where it is."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from opscore.api.endpoint import Endpoint
from tasks import why
from tasks.control_api import run_of, task_of
from tasks.states import TASK


class ReasonSerializer(serializers.Serializer[Any]):
    """One reason; the first ones count first."""

    code = serializers.CharField(
        help_text="A word for programs: needs, paused, no_agent, all_busy, retry_at, …"
    )
    message = serializers.CharField()
    until = serializers.DateTimeField(
        allow_null=True, help_text="When it ends by itself, if that is known."
    )
    refs = serializers.DictField(help_text="Ids and names of what is meant.")


class ExplanationSerializer(serializers.Serializer[Any]):
    """Why a task is where it is."""

    task_id = serializers.UUIDField(source="task.id")
    run_id = serializers.UUIDField(source="task.run_id")
    key = serializers.CharField(source="task.key")
    status = serializers.ChoiceField(TASK.statuses, source="task.status")
    reasons = ReasonSerializer(many=True)
    expected_start = serializers.DateTimeField(
        allow_null=True, help_text="An estimate, by the last durations of the task's capability."
    )


class RunExplanationSerializer(serializers.Serializer[Any]):
    """Why the live tasks of a run are where they are."""

    tasks = ExplanationSerializer(many=True)


class WhyTask(Endpoint):
    """Explanation of one task."""

    @extend_schema(responses=ExplanationSerializer)
    def get(self, request: Request, task_id: UUID) -> Response:
        """Say what the task waits for, why it was skipped or failed, and why that agent had it."""
        return Response(ExplanationSerializer(why.explain(task_of(self, task_id))).data)


class WhyRun(Endpoint):
    """Explanation of a run."""

    @extend_schema(responses=RunExplanationSerializer)
    def get(self, request: Request, run_id: UUID) -> Response:
        """Explain the run's live tasks, at most 50, those at work first."""
        found = why.explain_run(run_of(self, run_id))
        return Response(RunExplanationSerializer({"tasks": found}).data)


urlpatterns = [
    path("tasks/<uuid:task_id>/why", WhyTask.as_view()),
    path("runs/<uuid:run_id>/why", WhyRun.as_view()),
]
