"""Admin of runs and tasks: to look at, to cancel, pause, run again, approve."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.decorators import display

from opscore.admin_columns import (
    block,
    duration,
    failure,
    label,
    lines,
    link,
    moment,
    pretty,
    readable,
    short,
)
from opscore.admin_site import ReadOnlyAdmin, ReadOnlyInline
from opscore.errors import OpsCoreError
from tasks import admin_exchange, admin_records, admin_routing, control, inbox, reruns
from tasks.models import Attempt, Run, Task
from tasks.results import outputs_of, result_of
from tasks.serializers import agents_of
from tasks.why import explain

#: Django looks for admins in this module only.
__all__ = ["RunAdmin", "TaskAdmin", "admin_exchange", "admin_records", "admin_routing"]
_LOG_LINES = 200


class TaskInline(ReadOnlyInline):
    """The tasks of a run, in topological order."""

    model = Task
    per_page = 50
    fields = [
        "shown_key",
        label("status", "status"),
        "capability",
        "attempt",
        "losses",
        "took",
        failure,
    ]
    readonly_fields = fields
    ordering = ["number"]
    verbose_name_plural = "tasks"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Task]:
        """Leave out the engine's own end node."""
        tasks = Task.objects.exclude(uses="end").order_by("number")
        return tasks.defer("result", "inputs", "outputs")

    @display(description="task")
    def shown_key(self, task: Task) -> str:
        """Link to the task."""
        return link(task, task.key)

    @display(description="time")
    def took(self, task: Task) -> str:
        """Show how long it ran."""
        return duration(task.started_at, task.completed_at)


class AttemptInline(ReadOnlyInline):
    """The tries of a task that did not complete."""

    model = Attempt
    fields = [
        "number",
        label("outcome", "outcome"),
        moment("started_at", "started"),
        moment("ended_at", "ended"),
        failure,
    ]
    readonly_fields = fields
    ordering = ["id"]
    verbose_name_plural = "attempts that did not complete"


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin):
    """Runs; cancel them here."""

    list_display = [
        "shown_id",
        "shown_workflow",
        label("status", "status"),
        "task_count",
        "priority",
        moment("created_at", "created"),
        "took",
        failure,
    ]
    list_filter = ["status", "workflow", "created_at", "project"]
    search_fields = ["id", "workflow"]
    ordering = ["-id"]
    actions = ["cancel", "cancel_at_once", "pause", "resume", "rerun"]
    inlines = [TaskInline]
    fields = [
        "id",
        "shown_workflow",
        label("status", "status"),
        failure,
        "priority",
        "task_count",
        "phase",
        "shown_above",
        moment("created_at", "created"),
        moment("completed_at", "completed"),
        "took",
        "project",
        readable("inputs"),
        "shown_outputs",
    ]

    @display(description="run", ordering="id")
    def shown_id(self, run: Run) -> str:
        """Show the tail of the id."""
        return short(run.pk)

    @display(description="workflow", ordering="workflow")
    def shown_workflow(self, run: Run) -> str:
        """Show workflow and version."""
        return f"{run.workflow} {run.version}".strip() or "(a task on its own)"

    @display(description="time")
    def took(self, run: Run) -> str:
        """Show how long it took."""
        return duration(run.created_at, run.completed_at)

    @display(description="outputs")
    def shown_outputs(self, run: Run) -> str:
        """Show the outputs, readable."""
        return pretty(outputs_of(run))

    @display(description="above")
    def shown_above(self, run: Run) -> str:
        """Link to the task that it is the body of, or to the run that it repeats."""
        if run.parent_task_id:
            above = Task.objects.filter(pk=run.parent_task_id).first()
            return link(above, f"body of {above.key}") if above else "–"
        old = Run.objects.filter(pk=run.rerun_of).first() if run.rerun_of else None
        return link(old, f"runs {short(old.pk)} again") if old else "–"

    @admin.action(description="Cancel the selected runs")
    def cancel(self, request: HttpRequest, queryset: QuerySet[Run]) -> None:
        """Cancel runs that have not ended; undo and finally are still done."""
        each(self, request, queryset, control.cancel_run)

    @admin.action(description="Cancel the selected runs at once, without undo and finally")
    def cancel_at_once(self, request: HttpRequest, queryset: QuerySet[Run]) -> None:
        """Cancel everything of runs that have not ended."""
        each(self, request, queryset, partial(control.cancel_run, force=True))

    @admin.action(description="Pause the selected runs")
    def pause(self, request: HttpRequest, queryset: QuerySet[Run]) -> None:
        """Start nothing new in them."""
        each(self, request, queryset, control.pause_run, "Paused")

    @admin.action(description="Resume the selected runs")
    def resume(self, request: HttpRequest, queryset: QuerySet[Run]) -> None:
        """Let paused runs go on."""
        each(self, request, queryset, control.resume_run, "Resumed")

    @admin.action(description="Run the selected runs again from what failed")
    def rerun(self, request: HttpRequest, queryset: QuerySet[Run]) -> None:
        """Start ended runs again as new runs."""
        each(self, request, queryset, reruns.rerun, "Started again")


@admin.register(Task)
class TaskAdmin(ReadOnlyAdmin):
    """Tasks; cancel them here."""

    list_display = [
        "key",
        label("status", "status"),
        "capability",
        "shown_run",
        "priority",
        "attempt",
        "losses",
        moment("created_at", "created"),
        "took",
        failure,
    ]
    list_filter = ["status", "capability", "uses", "created_at", "project"]
    search_fields = ["id", "key", "capability", "run__id", "run__workflow"]
    list_select_related = ["run"]
    ordering = ["-id"]
    actions = ["cancel", "approve", "reject"]
    inlines = [AttemptInline]
    fields = [
        "id",
        "key",
        "shown_run",
        label("status", "status"),
        "why",
        failure,
        "capability",
        "shown_requires",
        "shown_agent",
        "queue",
        "priority",
        "attempt",
        "losses",
        "join",
        "phase",
        "waits_for",
        "timeout_s",
        moment("created_at", "created"),
        moment("ready_at", "ready"),
        moment("started_at", "started"),
        moment("completed_at", "completed"),
        "took",
        moment("wake_at", "wakes"),
        readable("retry"),
        readable("flow"),
        readable("names"),
        readable("inputs", "inputs, as written"),
        readable("outputs"),
        "shown_result",
        "shown_log",
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Task]:
        """Leave large columns for the page of one task."""
        return (
            super().get_queryset(request).defer("result", "inputs", "outputs", "outputs_template")
        )

    @display(description="run", ordering="run__workflow")
    def shown_run(self, task: Task) -> str:
        """Link to the run."""
        return link(task.run, f"{task.run.workflow or 'task'} {short(task.run_id)}")

    @display(description="agent")
    def shown_agent(self, task: Task) -> str:
        """Link to the agent of the present or last attempt."""
        return link(agents_of([task]).get(task.session_id)) if task.session_id else "–"

    @display(description="why")
    def why(self, task: Task) -> str:
        """Say why it is where it is, and when it is expected to start."""
        found = explain(task)
        said = [reason.message for reason in found.reasons]
        if found.expected_start is not None:
            at = timezone.localtime(found.expected_start)
            said.append(f"It is expected to start at {at:%Y-%m-%d %H:%M:%S}.")
        return lines(said)

    @display(description="requires")
    def shown_requires(self, task: Task) -> str:
        """List the labels that it requires."""
        return ", ".join(task.requires) or "–"

    @display(description="time")
    def took(self, task: Task) -> str:
        """Show how long it ran."""
        return duration(task.started_at, task.completed_at)

    @display(description="result")
    def shown_result(self, task: Task) -> str:
        """Show the result, readable."""
        return pretty(result_of(task))

    @display(description="log")
    def shown_log(self, task: Task) -> str:
        """Show the latest lines."""
        latest = list(task.logs.order_by("-id")[:_LOG_LINES])[::-1]
        lines = [
            f"{line.at:%H:%M:%S} {line.attempt} {line.stream:8} {line.text}" for line in latest
        ]
        return block("\n".join(lines)) if lines else "–"

    @admin.action(description="Cancel the selected tasks")
    def cancel(self, request: HttpRequest, queryset: QuerySet[Task]) -> None:
        """Cancel tasks that have not ended; what depends on them is judged by its join."""
        each(self, request, queryset, control.cancel_task)

    @admin.action(description="Approve the selected tasks")
    def approve(self, request: HttpRequest, queryset: QuerySet[Task]) -> None:
        """Approve what waits for a decision."""
        each(self, request, queryset, _deciding(request, "approve"), "Approved")

    @admin.action(description="Reject the selected tasks")
    def reject(self, request: HttpRequest, queryset: QuerySet[Task]) -> None:
        """Reject what waits for a decision."""
        each(self, request, queryset, _deciding(request, "reject"), "Rejected")


def _deciding(request: HttpRequest, decision: str) -> Callable[..., None]:
    """Return the decision as a verb; roles are the user's groups, a superuser has all."""
    user = request.user
    roles = None if user.is_superuser else set(user.groups.values_list("name", flat=True))
    return lambda pk, actor: inbox.decide(pk, decision, by=actor, roles=roles)


def each(
    page: ReadOnlyAdmin,
    request: HttpRequest,
    rows: QuerySet[Any],
    verb: Callable[..., Any],
    done: str = "Cancelled",
) -> None:
    """Do a verb with each selected row; an error is a message, the others go on."""
    for pk in rows.values_list("pk", flat=True):
        try:
            verb(pk, actor=request.user.get_username())
            page.message_user(request, f"{done} {short(pk)}.")
        except OpsCoreError as error:
            page.message_user(request, f"{short(pk)}: {error}", messages.ERROR)
