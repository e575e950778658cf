"""`GET /events`: what happened, newest first."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db.models import QuerySet
from rest_framework import serializers

from opscore.api.endpoint import Listing
from opscore.models import Event


class EventSerializer(serializers.ModelSerializer[Event]):
    """One thing that happened."""

    class Meta:
        model = Event
        fields = ["id", "at", "kind", "run_id", "task_id", "agent_id", "actor", "data"]


class EventFilter(django_filters.FilterSet):
    """Filters of the list of events."""

    kind = django_filters.CharFilter(
        lookup_expr="startswith", help_text="As `task.` or `agent.lost`"
    )
    run = django_filters.UUIDFilter(field_name="run_id")
    task = django_filters.UUIDFilter(field_name="task_id")
    agent = django_filters.UUIDFilter(field_name="agent_id")
    actor = django_filters.CharFilter(help_text="Who did it.")

    class Meta:
        model = Event
        fields: list[str] = []


class Events(Listing):
    """Retries, losses, restarts, cancels: what people want to know later."""

    serializer_class = EventSerializer
    orderings = {"at": "pk"}
    filterset_class = EventFilter

    def newest(self) -> QuerySet[Any]:
        """Return the project's events."""
        return Event.objects.filter(project=self.project)
