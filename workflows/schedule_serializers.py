"""Schedules and their slots as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from opscore.api.endpoint import StrictSerializer
from opscore.api.schema import name_enum
from tasks.submission import MAX_FAIRNESS_KEY
from workflows import schedules
from workflows.models import CAUSES, OUTCOMES, OVERLAPS, Schedule, Slot
from workflows.recurrence import CATCH_UPS, MAX_EVERY_S

name_enum("CatchUp", CATCH_UPS)
name_enum("Overlap", OVERLAPS)
name_enum("SlotCause", CAUSES)
name_enum("SlotOutcome", OUTCOMES)


class SlotSerializer(serializers.ModelSerializer[Slot]):
    """One moment of a schedule and what became of it."""

    class Meta:
        model = Slot
        fields = [
            "id",
            "at",
            "until",
            "cause",
            "outcome",
            "reason",
            "run_id",
            "overlap",
            "created_at",
            "decided_at",
        ]


class ScheduleSerializer(serializers.ModelSerializer[Schedule]):
    """A schedule."""

    class Meta:
        model = Schedule
        fields = [
            "id",
            "name",
            "workflow",
            "version",
            "cron",
            "every_s",
            "timezone",
            "inputs",
            "slot_input",
            "priority",
            "fairness_key",
            "catch_up",
            "catch_up_window_s",
            "overlap",
            "paused",
            "next_at",
            "last_at",
            "created_at",
        ]


class ScheduleDetailSerializer(ScheduleSerializer):
    """A schedule and the next five slots of its timetable."""

    next_times = serializers.SerializerMethodField()

    class Meta(ScheduleSerializer.Meta):
        fields = [*ScheduleSerializer.Meta.fields, "next_times"]

    @extend_schema_field(serializers.ListField(child=serializers.DateTimeField()))
    def get_next_times(self, schedule: Schedule) -> list[datetime]:
        """Return the next five; a paused schedule lets them pass."""
        return schedules.upcoming(schedule)


class _Fields(StrictSerializer):
    """What may be said about a schedule."""

    version = serializers.CharField(
        max_length=40, required=False, allow_null=True, help_text="Default: the latest."
    )
    cron = serializers.CharField(
        required=False,
        allow_null=True,
        allow_blank=True,
        help_text="Five fields, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.",
    )
    every_s = serializers.IntegerField(
        required=False,
        allow_null=True,
        min_value=1,
        max_value=MAX_EVERY_S,
        help_text="Seconds; instead of `cron`.",
    )
    timezone = serializers.CharField(
        required=False, help_text="IANA name, as `Europe/Berlin`; default UTC."
    )
    inputs = serializers.DictField(required=False)
    slot_input = serializers.CharField(
        max_length=100,
        required=False,
        allow_null=True,
        help_text="The input that gets the slot's time (ISO 8601, in the schedule's zone).",
    )
    priority = serializers.IntegerField(
        min_value=0, max_value=9, required=False, allow_null=True, help_text="9 is served first."
    )
    fairness_key = serializers.CharField(
        max_length=MAX_FAIRNESS_KEY,
        required=False,
        allow_blank=True,
        help_text="Whose work the runs are; default: what the workflow says, else the schedule.",
    )
    catch_up = serializers.ChoiceField(
        CATCH_UPS, required=False, help_text="What to do about slots that nobody fired in time."
    )
    catch_up_window_s = serializers.IntegerField(
        min_value=0,
        max_value=MAX_EVERY_S,
        required=False,
        help_text="Slots that are later than this are given up; default one day.",
    )
    overlap = serializers.ChoiceField(
        OVERLAPS, required=False, help_text="What to do while an earlier run has not ended."
    )
    paused = serializers.BooleanField(required=False)


class CreateScheduleSerializer(_Fields):
    """What `POST /schedules` takes: a name, a workflow, and either `cron` or `every_s`."""

    name = serializers.CharField(max_length=100)
    workflow = serializers.CharField(max_length=100, help_text="Name or id.")


class ChangeScheduleSerializer(_Fields):
    """What `PATCH /schedules/{ref}` takes; what is left out stays."""

    name = serializers.CharField(max_length=100, required=False)
    workflow = serializers.CharField(max_length=100, required=False, help_text="Name or id.")


class TriggerSerializer(StrictSerializer):
    """What `POST /schedules/{ref}/trigger` takes."""

    overlap = serializers.ChoiceField(
        OVERLAPS, required=False, help_text="Default: the schedule's policy."
    )


class BackfillSerializer(TriggerSerializer):
    """What `POST /schedules/{ref}/backfill` takes."""

    to = serializers.DateTimeField(help_text="Slots before it; not in the future.")

    def get_fields(self) -> dict[str, Any]:
        """Add `from`, which is no name in Python."""
        start = serializers.DateTimeField(help_text="Slots from it on.")
        return {"from": start, **super().get_fields()}


class BackfillAnswerSerializer(serializers.Serializer[Any]):
    """What a backfill did."""

    slots = serializers.IntegerField(help_text="Slots of the timetable in the range.")
    created = serializers.IntegerField(help_text="Those that had no run and waited for none.")
