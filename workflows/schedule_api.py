"""REST: schedules and their slots."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import django_filters
from django.db.models import QuerySet
from django.urls import path
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from opscore.api.endpoint import Endpoint, Listing, path_of
from opscore.api.pages import BY_AGE_OR_NAME
from workflows import schedules
from workflows.models import CAUSES, OUTCOMES, Schedule, Slot
from workflows.schedule_serializers import (
    BackfillAnswerSerializer,
    BackfillSerializer,
    ChangeScheduleSerializer,
    CreateScheduleSerializer,
    ScheduleDetailSerializer,
    ScheduleSerializer,
    SlotSerializer,
    TriggerSerializer,
)

_NIGHTLY = OpenApiExample(
    "Every night",
    {"name": "nightly", "workflow": "review", "cron": "0 3 * * *", "timezone": "Europe/Berlin"},
    request_only=True,
)
_SAID = (*CreateScheduleSerializer().fields, "paused")


class ScheduleFilter(django_filters.FilterSet):
    """Filters of the list of schedules."""

    name = django_filters.CharFilter(lookup_expr="icontains", help_text="Part of the name.")
    workflow = django_filters.CharFilter()
    paused = django_filters.BooleanFilter()

    class Meta:
        model = Schedule
        fields: list[str] = []


class SlotFilter(django_filters.FilterSet):
    """Filters of the list of slots."""

    outcome = django_filters.ChoiceFilter(choices=[(word, word) for word in OUTCOMES])
    cause = django_filters.ChoiceFilter(choices=[(word, word) for word in CAUSES])

    class Meta:
        model = Slot
        fields: list[str] = []


class Schedules(Listing):
    """The schedules of the project."""

    serializer_class = ScheduleSerializer
    filterset_class = ScheduleFilter
    orderings = BY_AGE_OR_NAME

    def newest(self) -> QuerySet[Any]:
        """Return the project's schedules."""
        return Schedule.objects.filter(project=self.project)

    @extend_schema(
        request=CreateScheduleSerializer,
        responses={201: ScheduleDetailSerializer},
        examples=[_NIGHTLY],
    )
    def post(self, request: Request) -> Response:
        """Create a schedule; the answer shows its next five slots."""
        schedule = schedules.create(self.project, **self.checked(CreateScheduleSerializer))
        headers = {"Location": path_of(request, "schedules", schedule.pk)}
        return Response(ScheduleDetailSerializer(schedule).data, status=201, headers=headers)


class OneSchedule(Endpoint):
    """One schedule, by id or name."""

    is_edited = True

    def edited(self, **kwargs: Any) -> Any:
        """Return what was said of the schedule, without when it fires next."""
        schedule = schedules.find(self.project, kwargs["ref"])
        return {name: getattr(schedule, name) for name in _SAID}

    @extend_schema(responses=ScheduleDetailSerializer)
    def get(self, request: Request, ref: str) -> Response:
        """Show a schedule and its next five slots."""
        return _shown(schedules.find(self.project, ref))

    @extend_schema(request=ChangeScheduleSerializer, responses=ScheduleDetailSerializer)
    def patch(self, request: Request, ref: str) -> Response:
        """Change a schedule; another timetable counts from now on."""
        fields = self.checked(ChangeScheduleSerializer)
        return _shown(schedules.change(self.project, ref, **fields))

    @extend_schema(responses={204: None})
    def delete(self, request: Request, ref: str) -> Response:
        """Delete a schedule and its slots; the runs stay."""
        schedules.delete(self.project, ref)
        return Response(status=204)


class PauseSchedule(Endpoint):
    """Pause of one schedule."""

    @extend_schema(request=None, responses=ScheduleDetailSerializer)
    def post(self, request: Request, ref: str) -> Response:
        """Fire no more slots until it is resumed."""
        return _shown(schedules.pause(self.project, ref))


class ResumeSchedule(Endpoint):
    """Resume of one schedule."""

    @extend_schema(request=None, responses=ScheduleDetailSerializer)
    def post(self, request: Request, ref: str) -> Response:
        """Go on from now; slots of the pause are not made good (see backfill)."""
        return _shown(schedules.resume(self.project, ref))


class TriggerSchedule(Endpoint):
    """A slot by hand."""

    @extend_schema(request=TriggerSerializer, responses={201: SlotSerializer})
    def post(self, request: Request, ref: str) -> Response:
        """Fire now, beside the timetable, also while paused; the overlap policy applies."""
        slot = schedules.trigger(self.project, ref, **self.checked(TriggerSerializer))
        slot.refresh_from_db()
        return Response(SlotSerializer(slot).data, status=201)


class BackfillSchedule(Endpoint):
    """Slots of a range that is past."""

    @extend_schema(request=BackfillSerializer, responses={201: BackfillAnswerSerializer})
    def post(self, request: Request, ref: str) -> Response:
        """Have every slot of the range run that started no run yet; harmless when repeated."""
        wanted = self.checked(BackfillSerializer)
        start, end = wanted.pop("from"), wanted.pop("to")
        done = schedules.backfill(self.project, ref, start, end, **wanted)
        return Response(asdict(done), status=201)


class Slots(Listing):
    """The slots of one schedule."""

    serializer_class = SlotSerializer
    filterset_class = SlotFilter

    def newest(self) -> QuerySet[Any]:
        """Return the schedule's slots."""
        return Slot.objects.filter(schedule=schedules.find(self.project, self.kwargs["ref"]))

    @extend_schema(operation_id="schedules_slots_list")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return what became of each slot, one page, newest first."""
        return self.list(request, *args, **kwargs)


def _shown(schedule: Schedule) -> Response:
    return Response(ScheduleDetailSerializer(schedule).data)


urlpatterns = [
    path("schedules", Schedules.as_view()),
    path("schedules/<str:ref>", OneSchedule.as_view()),
    path("schedules/<str:ref>/pause", PauseSchedule.as_view()),
    path("schedules/<str:ref>/resume", ResumeSchedule.as_view()),
    path("schedules/<str:ref>/trigger", TriggerSchedule.as_view()),
    path("schedules/<str:ref>/backfill", BackfillSchedule.as_view()),
    path("schedules/<str:ref>/slots", Slots.as_view()),
]
