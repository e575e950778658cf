"""REST: tasks as they are submitted, one or a thousand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.urls import path
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from opscore.api.endpoint import Endpoint, StrictSerializer
from tasks import submission
from tasks.flow import Flow
from tasks.graph import Node
from tasks.retries import RetryPolicy
from tasks.serializers import SubmitSerializer

#: Tasks in one call; more would hold their locks, and whoever waits for the answer, for too long.
MAX_BULK = 1000

_REVIEW = {"capability": "review", "inputs": {"file": "a.py"}, "priority": 8, "retry": {"limit": 3}}
SUBMIT = OpenApiExample("A task on its own", _REVIEW, request_only=True)
_BULK = OpenApiExample(
    "Two tasks", {"tasks": [_REVIEW, {**_REVIEW, "inputs": {"file": "b.py"}}]}, request_only=True
)


@extend_schema_field(
    {
        "type": "array",
        "items": {"$ref": "#/components/schemas/Submit"},
        "minItems": 1,
        "maxItems": MAX_BULK,
    }
)
class _Tasks(serializers.ListSerializer[Any]):
    pass


class BulkSerializer(StrictSerializer):
    """What `POST /tasks/bulk` takes."""

    tasks = _Tasks(child=SubmitSerializer(), min_length=1, max_length=MAX_BULK)


class SubmittedSerializer(serializers.Serializer[Any]):
    """A task that was submitted together with others."""

    id = serializers.UUIDField()
    run_id = serializers.UUIDField()
    key = serializers.CharField()


class SubmittedTasksSerializer(serializers.Serializer[Any]):
    """The tasks, in the order in which they were sent."""

    tasks = SubmittedSerializer(many=True)


class Bulk(Endpoint):
    """Many tasks at once."""

    @extend_schema(
        request=BulkSerializer, responses={201: SubmittedTasksSerializer}, examples=[_BULK]
    )
    def post(self, request: Request) -> Response:
        """Submit up to 1,000 tasks, all or none; an error names each wrong one as `tasks[3]`."""
        wanted = self.checked(BulkSerializer)["tasks"]
        made = submission.submit_tasks(
            self.project, [_single(data) for data in wanted], actor=self.actor
        )
        shown = [{"id": str(task.id), "run_id": str(task.run_id), "key": task.key} for task in made]
        return Response({"tasks": shown}, status=201)


def node_of(data: Mapping[str, Any]) -> Node:
    """Return what a checked submit asks for."""
    return Node(
        key=data.get("key", "task"),
        capability=data["capability"],
        requires=tuple(data.get("requires", ())),
        inputs=_literal(data.get("inputs", {})),
        retry=RetryPolicy.from_dict(data.get("retry", {})),
        timeout_s=data.get("timeout_s"),
        flow=Flow(
            prefers=data.get("prefers", {}),
            sticky=_literal(data.get("sticky", "")),
            resources=tuple(dict.fromkeys(data.get("resource", ()))),
        ),
    )


def _single(data: Mapping[str, Any]) -> submission.Single:
    return submission.Single(node_of(data), data.get("priority", 5), data.get("fairness_key", ""))


def _literal(value: Any) -> Any:
    """Return inputs as a template that renders to themselves: a task on its own has no
    expressions, and its inputs may be any text.
    """
    if isinstance(value, str):
        return value.replace("${{", "$${{")
    if isinstance(value, dict):
        return {name: _literal(inner) for name, inner in value.items()}
    return [_literal(inner) for inner in value] if isinstance(value, list) else value


urlpatterns = [path("tasks/bulk", Bulk.as_view())]
