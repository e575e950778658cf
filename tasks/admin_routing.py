"""Admin of what routing remembers: sticky keys and turns."""

from __future__ import annotations

from django.contrib import admin
from unfold.decorators import display

from opscore.admin_columns import link, moment
from opscore.admin_site import ReadOnlyAdmin
from tasks.models import Sticky, Turn


@admin.register(Sticky)
class StickyAdmin(ReadOnlyAdmin):
    """Sticky keys and the agents that they are bound to."""

    list_display = [
        "key",
        "queue",
        "shown_agent",
        moment("bound_at", "bound"),
        moment("used_at", "used"),
    ]
    list_filter = ["project"]
    search_fields = ["key", "queue", "agent__name"]
    list_select_related = ["agent"]
    ordering = ["-used_at"]
    fields = list_display

    @display(description="agent", ordering="agent__name")
    def shown_agent(self, sticky: Sticky) -> str:
        """Link to the agent."""
        return link(sticky.agent)


@admin.register(Turn)
class TurnAdmin(ReadOnlyAdmin):
    """How much agents were given by strategies, each task counted as 1/weight."""

    project_path = "agent__project"
    list_display = ["capability", "shown_agent", "turn"]
    search_fields = ["capability", "agent__name"]
    list_select_related = ["agent"]
    ordering = ["capability", "turn"]
    fields = list_display

    @display(description="agent", ordering="agent__name")
    def shown_agent(self, turn: Turn) -> str:
        """Link to the agent."""
        return link(turn.agent)
