"""Admin page of circuit breakers."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from agents import breakers
from agents.models import Breaker
from opscore.admin_columns import moment
from opscore.admin_site import OurAdmin

_RULE = ["threshold", "min_calls", "window_s", "cooldown_s"]
_STANDS = ["kind", "name", "state", moment("since", "since"), moment("until", "until")]
_COUNTS = ["calls", "failures", "places", "openings", "reason", "changed_by"]


@admin.register(Breaker)
class BreakerAdmin(OurAdmin):
    """Breakers of agents and resources: opened, closed and configured here."""

    list_display = [*_STANDS, "reason", "changed_by"]
    list_filter = ["state", "kind", "project"]
    search_fields = ["name"]
    ordering = ["kind", "name"]
    fields = [*_STANDS, *_COUNTS, *_RULE]
    readonly_fields = [*_STANDS, *_COUNTS]
    actions = ["open_selected", "close_selected"]

    @admin.action(description="Open until closed by hand")
    def open_selected(self, request: HttpRequest, queryset: QuerySet[Breaker]) -> None:
        """Park what needs them."""
        by = request.user.get_username()
        for found in queryset.select_related("project"):
            breakers.open_by_hand(found.project, found.kind, found.name, actor=by)
        self.message_user(request, f"{queryset.count()} opened.")

    @admin.action(description="Close and forget failures")
    def close_selected(self, request: HttpRequest, queryset: QuerySet[Breaker]) -> None:
        """Let everything go on."""
        by = request.user.get_username()
        for found in queryset.select_related("project"):
            breakers.close_by_hand(found.project, found.kind, found.name, actor=by)
        self.message_user(request, f"{queryset.count()} closed.")

    def save_model(self, request: HttpRequest, obj: Breaker, form: Any, change: bool) -> None:
        """Change the rule only: state is not written by a form."""
        rule = {field: getattr(obj, field) for field in _RULE}
        breakers.configure(obj.project, obj.kind, obj.name, rule, request.user.get_username())

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: a breaker begins with a failure, or over the API."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: closing forgets as much."""
        return False
