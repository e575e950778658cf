"""Workflows: a name, and its immutable versions. Schedules, and their slots."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from opscore.ids import uuid7
from opscore.models import Project
from workflows.recurrence import CATCH_UPS

OVERLAPS = ("allow", "skip", "queue", "cancel_oldest")
CAUSES = ("timetable", "backfill", "manual")
OUTCOMES = ("pending", "started", "skipped", "failed")


class Workflow(models.Model):
    """A named workflow; runs are pinned to one of its versions."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    project = models.ForeignKey(Project, models.CASCADE)
    name = models.CharField(max_length=100)
    description = models.TextField(blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="workflow_once")]

    def __str__(self) -> str:
        return self.name


class WorkflowVersion(models.Model):
    """One definition, as it was uploaded; it never changes."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    workflow = models.ForeignKey(Workflow, models.CASCADE, related_name="versions")
    number = models.IntegerField(help_text="1, 2, 3… in order of upload")
    version = models.CharField(max_length=40, help_text="The author's name for it")
    definition = models.JSONField()
    digest = models.CharField(max_length=64, help_text="SHA-256 of the definition")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["workflow", "number"], name="version_number"),
            models.UniqueConstraint(fields=["workflow", "version"], name="version_name"),
        ]

    def __str__(self) -> str:
        return f"{self.workflow.name} {self.version}"


class Schedule(models.Model):
    """When runs of a workflow start by themselves; see `workflows.recurrence`."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    project = models.ForeignKey(Project, models.CASCADE)
    name = models.CharField(max_length=100)
    workflow = models.CharField(max_length=100, help_text="Its name, looked up at each slot")
    version = models.CharField(max_length=40, null=True, blank=True, help_text="None: the latest")
    cron = models.CharField(max_length=200, null=True, blank=True)
    every_s = models.IntegerField(null=True, blank=True)
    timezone = models.CharField(max_length=100, default="UTC", help_text="IANA name, for cron")
    inputs = models.JSONField(default=dict)
    slot_input = models.CharField(
        max_length=100, null=True, blank=True, help_text="The input that gets the slot's time"
    )
    priority = models.SmallIntegerField(null=True, blank=True, help_text="None: the workflow's")
    fairness_key = models.CharField(
        max_length=100,
        blank=True,
        db_default="",
        default="",
        help_text="Whose work the runs are; empty: the workflow's, else this schedule's",
    )
    catch_up = models.CharField(
        max_length=6, default="latest", choices=[(word, word) for word in CATCH_UPS]
    )
    catch_up_window_s = models.IntegerField(default=86400)
    overlap = models.CharField(
        max_length=13, default="allow", choices=[(word, word) for word in OVERLAPS]
    )
    paused = models.BooleanField(default=False)
    next_at = models.DateTimeField(
        null=True, blank=True, help_text="The next slot; None while paused"
    )
    last_at = models.DateTimeField(null=True, blank=True, help_text="The last slot of its turn")
    forgotten_to = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        help_text="The last slot that had a run and is deleted; no backfill begins before it",
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="schedule_once")]
        indexes = [models.Index(fields=["next_at"], name="schedule_due")]

    def __str__(self) -> str:
        return self.name


class Slot(models.Model):
    """One moment of a schedule and what became of it. `workflows.slots` writes the outcome."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    schedule = models.ForeignKey(Schedule, models.CASCADE, related_name="slots", db_index=False)
    at = models.DateTimeField()
    until = models.DateTimeField(
        null=True, blank=True, help_text="Of slots given up together: the last one"
    )
    cause = models.CharField(max_length=9, choices=[(word, word) for word in CAUSES])
    overlap = models.CharField(
        max_length=13, null=True, blank=True, help_text="None: the schedule's policy"
    )
    outcome = models.CharField(
        max_length=7, default="pending", choices=[(word, word) for word in OUTCOMES]
    )
    reason = models.TextField(blank=True, help_text="Why it waits, was skipped or failed")
    run_id = models.UUIDField(null=True, blank=True)
    live = models.BooleanField(default=False, help_text="Its run has not been seen to end")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            # What is triggered by hand is no slot of the timetable.
            models.UniqueConstraint(
                fields=["schedule", "at"], name="slot_once", condition=~Q(cause="manual")
            ),
            models.CheckConstraint(condition=Q(outcome__in=OUTCOMES), name="slot_outcome"),
            models.CheckConstraint(
                condition=Q(outcome="started", run_id__isnull=False)
                | (~Q(outcome="started") & Q(run_id=None)),
                name="slot_run",
            ),
        ]
        indexes = [
            models.Index(fields=["schedule", "-id"], name="slot_recent"),
            models.Index(
                fields=["schedule", "at"], name="slot_pending", condition=Q(outcome="pending")
            ),
            models.Index(fields=["schedule"], name="slot_live", condition=Q(live=True)),
            models.Index(fields=["decided_at"], name="slot_old", condition=Q(live=False)),
        ]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} UTC"
