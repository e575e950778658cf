"""Admin of what tasks leave behind: attempts, log lines, progress, payloads."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from opscore.admin_columns import block, failure, label, link, moment, pretty, short
from opscore.admin_site import ReadOnlyAdmin
from tasks import control, payloads
from tasks.models import Attempt, Pause, Payload, RateWindow, Signal, TaskLog, TaskProgress


@admin.register(Attempt)
class AttemptAdmin(ReadOnlyAdmin):
    """Tries that did not complete."""

    project_path = "task__project"
    list_display = [
        "shown_task",
        "number",
        label("outcome", "outcome"),
        moment("started_at", "started"),
        moment("ended_at", "ended"),
        failure,
    ]
    list_filter = ["outcome", "ended_at"]
    search_fields = ["task__id", "task__key"]
    list_select_related = ["task"]
    ordering = ["-id"]
    fields = [
        "shown_task",
        "number",
        "fence",
        label("outcome", "outcome"),
        "session_id",
        moment("started_at", "started"),
        moment("ended_at", "ended"),
        "shown_error",
    ]

    @display(description="task")
    def shown_task(self, attempt: Attempt) -> str:
        """Link to the task."""
        return link(attempt.task, f"{attempt.task.key} {short(attempt.task_id)}")

    @display(description="error")
    def shown_error(self, attempt: Attempt) -> str:
        """Show the whole error, readable."""
        return pretty(attempt.error)


@admin.register(TaskLog)
class TaskLogAdmin(ReadOnlyAdmin):
    """Lines that attempts logged."""

    project_path = "task__project"
    list_display = [moment("at", "at"), "shown_task", "attempt", "stream", "shown_text"]
    list_filter = ["stream", "at"]
    search_fields = ["task__id", "task__key", "text"]
    list_select_related = ["task"]
    ordering = ["-id"]
    fields = [moment("at", "at"), "shown_task", "attempt", "stream", "whole_text"]

    @display(description="task")
    def shown_task(self, line: TaskLog) -> str:
        """Link to the task."""
        return link(line.task, f"{line.task.key} {short(line.task_id)}")

    @display(description="text")
    def shown_text(self, line: TaskLog) -> str:
        """Show the line, shortened."""
        return line.text[:160]

    @display(description="text")
    def whole_text(self, line: TaskLog) -> str:
        """Show the whole line."""
        return block(line.text)


@admin.register(TaskProgress)
class TaskProgressAdmin(ReadOnlyAdmin):
    """How far tasks are, as their agents said last."""

    project_path = "task__project"
    list_display = ["shown_task", "attempt", "fraction", "message", moment("updated_at", "at")]
    list_filter = ["updated_at"]
    search_fields = ["task__id", "task__key", "message"]
    list_select_related = ["task"]
    ordering = ["-task_id"]
    fields = ["shown_task", "attempt", "fraction", "message", moment("updated_at", "at")]

    @display(description="task")
    def shown_task(self, told: TaskProgress) -> str:
        """Link to the task."""
        return link(told.task, f"{told.task.key} {short(told.task_id)}")


@admin.register(Payload)
class PayloadAdmin(ReadOnlyAdmin):
    """Results too large for a row."""

    list_display = ["id", "size", moment("created_at", "created"), "project"]
    list_filter = ["created_at", "project"]
    search_fields = ["id"]
    ordering = ["-id"]
    fields = ["id", "size", moment("created_at", "created"), "project", "shown_content"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Payload]:
        """Leave the content for the page of one payload."""
        return super().get_queryset(request).defer("content")

    @display(description="content")
    def shown_content(self, payload: Payload) -> str:
        """Show the beginning of the document."""
        return pretty(payloads.load(None, payload.pk))


@admin.register(Signal)
class SignalAdmin(ReadOnlyAdmin):
    """What was told to runs from outside."""

    project_path = "run__project"
    list_display = ["name", "run", "sent_by", moment("created_at", "sent"), "is_taken"]
    list_filter = ["name", "created_at", "run__project"]
    search_fields = ["name", "run__id"]
    ordering = ["-id"]
    fields = ["id", "run", "name", "sent_by", moment("created_at", "sent"), "taken_by", "shown"]

    @display(description="taken", boolean=True)
    def is_taken(self, signal: Signal) -> bool:
        """Tell whether a task took it."""
        return signal.taken_by is not None

    @display(description="payload")
    def shown(self, signal: Signal) -> str:
        """Show the payload, readable."""
        return pretty(signal.payload)


@admin.register(Pause)
class PauseAdmin(ReadOnlyAdmin):
    """What is paused: workflows, or everything."""

    list_display = ["__str__", "project", "reason", "paused_by", moment("created_at", "since")]
    list_filter = ["project"]
    actions = ["resume"]
    fields = ["workflow", "project", "reason", "paused_by", moment("created_at", "since")]

    @admin.action(description="Resume what is selected")
    def resume(self, request: HttpRequest, queryset: QuerySet[Pause]) -> None:
        """End the pauses."""
        for pause in queryset.select_related("project"):
            control.resume(pause.project, pause.workflow)
            self.message_user(request, f"Resumed {pause}.")


@admin.register(RateWindow)
class RateWindowAdmin(ReadOnlyAdmin):
    """The last starts under each rate limit, reserved ones included."""

    list_display = ["key", "project", "shown_starts"]
    list_filter = ["project"]
    search_fields = ["key"]
    fields = ["key", "project", "shown_starts"]

    @display(description="starts")
    def shown_starts(self, window: RateWindow) -> str:
        """Count them and show the last."""
        last = f", last {window.starts[-1]:%H:%M:%S}" if window.starts else ""
        return f"{len(window.starts)}{last}"
