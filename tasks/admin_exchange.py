"""Admin of what agents of a run exchange: shared context and messages."""

from __future__ import annotations

from django.contrib import admin
from unfold.decorators import display

from opscore.admin_columns import badge, link, masked, moment, short
from opscore.admin_site import ReadOnlyAdmin
from tasks.models import Message, SharedEntry, SharedTotal


@admin.register(SharedEntry)
class SharedEntryAdmin(ReadOnlyAdmin):
    """Values that agents of a run share."""

    project_path = "run__project"
    list_display = [
        "key",
        "shown_run",
        "version",
        "size",
        "updated_by",
        moment("updated_at", "updated"),
    ]
    list_filter = ["updated_at", "run__project"]
    search_fields = ["key", "run__id", "run__workflow", "updated_by"]
    list_select_related = ["run"]
    ordering = ["-id"]
    fields = [*list_display, masked("value")]

    @display(description="run")
    def shown_run(self, entry: SharedEntry) -> str:
        """Link to the run."""
        return link(entry.run, f"{entry.run.workflow} {short(entry.run_id)}")


@admin.register(SharedTotal)
class SharedTotalAdmin(ReadOnlyAdmin):
    """How much each run's shared context holds."""

    project_path = "run__project"
    list_display = ["shown_run", "entries", "bytes", "version"]
    search_fields = ["run__id", "run__workflow"]
    list_select_related = ["run"]
    ordering = ["-id"]
    fields = list_display

    @display(description="run")
    def shown_run(self, total: SharedTotal) -> str:
        """Link to the run."""
        return link(total.run, f"{total.run.workflow} {short(total.run_id)}")


@admin.register(Message)
class MessageAdmin(ReadOnlyAdmin):
    """Messages between agents."""

    list_display = [
        "topic",
        "shown_run",
        "shown_to",
        "sender",
        "state",
        "deliveries",
        moment("sent_at", "sent"),
        moment("expires_at", "expires"),
    ]
    list_filter = [("acknowledged_at", admin.EmptyFieldListFilter), "sent_at", "project"]
    search_fields = ["topic", "sender", "run__id", "to_agent__name", "to_capability"]
    list_select_related = ["run", "to_agent"]
    ordering = ["-id"]
    fields = [
        "id",
        *list_display,
        moment("lease_until", "held until"),
        moment("acknowledged_at", "acknowledged"),
        masked("body"),
    ]

    @display(description="run")
    def shown_run(self, message: Message) -> str:
        """Link to the run."""
        return link(message.run, f"{message.run.workflow} {short(message.run_id)}")

    @display(description="to")
    def shown_to(self, message: Message) -> str:
        """Show the receiver."""
        if message.to_agent is not None:
            return link(message.to_agent)
        return f"any {message.to_capability}"

    @display(description="state")
    def state(self, message: Message) -> str:
        """Say how far it is."""
        if message.acknowledged_at is not None:
            return badge("acknowledged")
        return badge("delivered" if message.deliveries else "waiting")
