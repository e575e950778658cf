"""Admin of workflows and their versions, and of schedules and their slots."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from opscore.admin_columns import badge, label, link, moment, pretty, readable, short
from opscore.admin_site import ReadOnlyAdmin, ReadOnlyInline
from tasks.models import Run
from workflows import schedules
from workflows.models import Schedule, Slot, Workflow, WorkflowVersion
from workflows.recurrence import in_words


class VersionInline(ReadOnlyInline):
    """The versions of a workflow."""

    model = WorkflowVersion
    fields = ["number", "shown_version", "digest", moment("created_at", "created")]
    readonly_fields = fields
    ordering = ["-number"]
    per_page = 20

    def get_queryset(self, request: HttpRequest) -> QuerySet[WorkflowVersion]:
        """Leave out the definitions: each may be megabytes."""
        return super().get_queryset(request).defer("definition")

    @display(description="version")
    def shown_version(self, version: WorkflowVersion) -> str:
        """Link to the version."""
        return link(version, version.version)


@admin.register(Workflow)
class WorkflowAdmin(ReadOnlyAdmin):
    """Workflows."""

    list_display = [
        "name",
        "description_shown",
        "versions_shown",
        "project",
        moment("created_at", "created"),
    ]
    list_filter = ["project", "created_at"]
    search_fields = ["name", "description", "id"]
    ordering = ["name"]
    inlines = [VersionInline]
    fields = [
        "id",
        "name",
        "description",
        "project",
        moment("created_at", "created"),
        "shown_definition",
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Workflow]:
        """Count the versions along."""
        return super().get_queryset(request).annotate(version_count=Count("versions"))

    @display(description="versions", ordering="version_count")
    def versions_shown(self, workflow: Any) -> int:
        """Show how many versions there are."""
        count: int = workflow.version_count
        return count

    @display(description="description")
    def description_shown(self, workflow: Workflow) -> str:
        """Show the description, shortened."""
        return workflow.description[:120] or "–"

    @display(description="latest definition")
    def shown_definition(self, workflow: Workflow) -> str:
        """Show the latest definition, readable."""
        latest = workflow.versions.order_by("-number").first()
        return pretty(latest.definition if latest else None)


@admin.register(WorkflowVersion)
class WorkflowVersionAdmin(ReadOnlyAdmin):
    """Versions of workflows."""

    project_path = "workflow__project"
    list_display = [
        "shown_workflow",
        "version",
        "number",
        "digest_shown",
        moment("created_at", "created"),
    ]
    list_filter = ["workflow", "created_at"]
    search_fields = ["workflow__name", "version", "digest"]
    list_select_related = ["workflow"]
    ordering = ["-id"]
    fields = [
        "id",
        "shown_workflow",
        "version",
        "number",
        "digest",
        moment("created_at", "created"),
        readable("definition"),
    ]

    @display(description="workflow", ordering="workflow__name")
    def shown_workflow(self, version: WorkflowVersion) -> str:
        """Link to the workflow."""
        return link(version.workflow)

    @display(description="digest")
    def digest_shown(self, version: WorkflowVersion) -> str:
        """Show the head of the digest."""
        return version.digest[:12]


class SlotInline(ReadOnlyInline):
    """The latest slots of a schedule."""

    model = Slot
    per_page = 20
    fields = [moment("at", "slot"), label("outcome", "outcome"), "cause", "shown_run", "reason"]
    readonly_fields = fields
    ordering = ["-id"]

    @display(description="run")
    def shown_run(self, slot: Slot) -> str:
        """Link to the run."""
        return _run_link(slot)


@admin.register(Schedule)
class ScheduleAdmin(ReadOnlyAdmin):
    """Schedules; made and changed through the API, where they are checked."""

    list_display = [
        "name",
        "workflow",
        "timetable",
        "state",
        moment("next_at", "next"),
        moment("last_at", "last"),
        "overlap",
        "catch_up",
        "project",
    ]
    list_filter = ["project", "paused", "overlap", "catch_up"]
    search_fields = ["name", "workflow", "id"]
    ordering = ["name"]
    actions = ["pause", "resume"]
    inlines = [SlotInline]
    fields = [
        "id",
        "name",
        "project",
        "workflow",
        "version",
        "timetable",
        "state",
        moment("next_at", "next"),
        moment("last_at", "last"),
        "overlap",
        "catch_up",
        "catch_up_window_s",
        "priority",
        "fairness_key",
        "slot_input",
        readable("inputs"),
        moment("created_at", "created"),
    ]

    @display(description="timetable", ordering="cron")
    def timetable(self, schedule: Schedule) -> str:
        """Say when it is due, in words."""
        if schedule.cron is None:
            return f"Every {schedule.every_s} s"
        return f"{in_words(schedule.cron)} ({schedule.timezone})"

    @display(description="state", ordering="paused")
    def state(self, schedule: Schedule) -> str:
        """Say whether it fires."""
        return badge("paused" if schedule.paused else "active")

    @admin.action(description="Pause the selected schedules")
    def pause(self, request: HttpRequest, queryset: QuerySet[Schedule]) -> None:
        """Fire no more slots."""
        for schedule in queryset.select_related("project"):
            schedules.pause(schedule.project, schedule.pk)
        self.message_user(request, "Paused.")

    @admin.action(description="Resume the selected schedules")
    def resume(self, request: HttpRequest, queryset: QuerySet[Schedule]) -> None:
        """Go on from now."""
        for schedule in queryset.select_related("project"):
            schedules.resume(schedule.project, schedule.pk)
        self.message_user(request, "Resumed.")


@admin.register(Slot)
class SlotAdmin(ReadOnlyAdmin):
    """Slots of schedules."""

    project_path = "schedule__project"
    list_display = [
        moment("at", "slot"),
        "shown_schedule",
        label("outcome", "outcome"),
        "cause",
        "shown_run",
        "reason",
    ]
    list_filter = ["outcome", "cause", "at"]
    search_fields = ["schedule__name", "reason", "run_id"]
    list_select_related = ["schedule"]
    ordering = ["-id"]
    fields = [
        "id",
        "shown_schedule",
        moment("at", "slot"),
        moment("until", "until"),
        label("outcome", "outcome"),
        "reason",
        "shown_run",
        "cause",
        "overlap",
        moment("created_at", "created"),
        moment("decided_at", "decided"),
    ]

    @display(description="schedule", ordering="schedule__name")
    def shown_schedule(self, slot: Slot) -> str:
        """Link to the schedule."""
        return link(slot.schedule)

    @display(description="run")
    def shown_run(self, slot: Slot) -> str:
        """Link to the run."""
        return _run_link(slot)


def _run_link(slot: Slot) -> str:
    return link(Run(id=slot.run_id), short(slot.run_id)) if slot.run_id else "–"
