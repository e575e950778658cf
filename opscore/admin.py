"""Admin of the ground: projects, events, the audit log, remembered answers."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from opscore import (
    admin_limits,  # noqa: F401 - their pages register themselves
    admin_people,  # noqa: F401
    admin_secrets,  # noqa: F401
)
from opscore.admin_columns import moment, readable, short
from opscore.admin_site import OurAdmin, ReadOnlyAdmin
from opscore.models import AuditEntry, Event, IdempotentAnswer, Membership, Project

admin.site.index_title = "Home"


@admin.register(Project)
class ProjectAdmin(OurAdmin):
    """Namespaces."""

    list_display = ["slug", moment("created_at", "created")]
    search_fields = ["slug"]
    ordering = ["slug"]

    def get_readonly_fields(self, request: HttpRequest, obj: Project | None = None) -> Any:
        """Lock the slug once it is there: names of queues hold it."""
        return ["slug"] if obj else []

    def save_model(self, request: HttpRequest, obj: Project, form: Any, change: bool) -> None:
        """Make whoever makes a project a member of it."""
        super().save_model(request, obj, form, change)
        person = request.user
        if not change and person.is_authenticated and not person.is_superuser:
            Membership.objects.create(user=person, project=obj)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Refuse: everything in it would go too."""
        return False


class SubjectFilter(admin.SimpleListFilter):
    """Events by the first word of their kind; asking for all kinds would read every event."""

    title = "about"
    parameter_name = "about"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer what events are about."""
        return [(word, f"{word}s") for word in ("agent", "run", "task", "schedule")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Event]) -> QuerySet[Event]:
        """Keep the events about what was chosen."""
        word = self.value()
        return queryset.filter(kind__startswith=f"{word}.") if word else queryset


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    """What happened."""

    list_display = [
        moment("at", "at"),
        "kind",
        "shown_run",
        "shown_task",
        "shown_agent",
        "actor",
        "message",
    ]
    list_filter = ["project", SubjectFilter, "at"]
    search_fields = ["kind", "actor", "run_id", "task_id", "agent_id"]
    ordering = ["-id"]
    fields = [
        moment("at", "at"),
        "kind",
        "project",
        "actor",
        "run_id",
        "task_id",
        "agent_id",
        readable("data"),
    ]

    @display(description="run")
    def shown_run(self, event: Event) -> str:
        """Show the tail of the run's id."""
        return short(event.run_id)

    @display(description="task")
    def shown_task(self, event: Event) -> str:
        """Show the tail of the task's id."""
        return short(event.task_id)

    @display(description="agent")
    def shown_agent(self, event: Event) -> str:
        """Show the tail of the agent's id."""
        return short(event.agent_id)

    @display(description="message")
    def message(self, event: Event) -> str:
        """Show the words of the event, if it has any."""
        data = event.data if isinstance(event.data, dict) else {}
        words = data.get("message") or data.get("reason") or data.get("error") or ""
        return str(words)[:100]


class AnswerFilter(admin.SimpleListFilter):
    """Answers by the hundreds of their status."""

    title = "status"
    parameter_name = "answered"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer each kind of answer."""
        return [("0", "runs still"), ("2", "done"), ("4", "refused"), ("5", "failed")]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[IdempotentAnswer]
    ) -> QuerySet[IdempotentAnswer]:
        """Keep the answers of the kind that was chosen."""
        first = {"0": 0, "2": 200, "4": 400, "5": 500}.get(self.value() or "")
        return queryset if first is None else queryset.filter(status__range=(first, first + 99))


@admin.register(IdempotentAnswer)
class IdempotentAnswerAdmin(ReadOnlyAdmin):
    """Answers kept for requests that are sent again."""

    list_display = ["key", "target", "status", "project", moment("created_at", "created")]
    list_filter = ["project", AnswerFilter, "created_at"]
    search_fields = ["key", "target"]
    ordering = ["-id"]
    fields = [
        "key",
        "target",
        "project",
        "status",
        moment("created_at", "created"),
        "body_digest",
        readable("answer"),
    ]


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    """Who did what from where; a chain of hashes proves that nobody changed it."""

    list_display = [
        moment("at", "at"),
        "actor",
        "action",
        "target",
        "status",
        "address",
        "number",
    ]
    list_filter = ["project", "actor_kind", "at"]
    search_fields = ["actor", "action", "target", "key", "request_id"]
    ordering = ["-id"]
    fields = [
        "number",
        moment("at", "at"),
        "project",
        "actor",
        "actor_kind",
        "key",
        "address",
        "request_id",
        "action",
        "target",
        "status",
        readable("data"),
        "previous",
        "hash",
    ]
