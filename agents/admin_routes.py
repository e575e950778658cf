"""Admin page of routes: which strategy chooses the agents of a capability."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from agents import routes
from agents.models import Route
from opscore.admin_columns import moment
from opscore.admin_site import OurAdmin
from opscore.errors import InvalidError


class RouteForm(forms.ModelForm):  # type: ignore[type-arg]
    """How the agents of a capability are chosen."""

    class Meta:
        model = Route
        fields = ["project", "capability", "strategy", "weights"]

    def clean(self) -> Any:
        """Refuse what `agents.routes` would refuse."""
        said = super().clean() or self.cleaned_data
        weights = said.get("weights") or {}
        if not isinstance(weights, dict):
            raise forms.ValidationError({"weights": "An object is expected: agent or label -> 1."})
        try:
            capability = said.get("capability") or self.instance.capability
            routes.check(capability, said.get("strategy", ""), weights)
        except InvalidError as error:
            raise forms.ValidationError([str(problem) for problem in error.problems]) from None
        return {**said, "weights": weights}


@admin.register(Route)
class RouteAdmin(OurAdmin):
    """Strategies of capabilities."""

    form = RouteForm
    list_display = ["capability", "strategy", "project", moment("changed_at", "changed")]
    list_filter = ["strategy", "project"]
    search_fields = ["capability"]
    ordering = ["capability"]

    def get_readonly_fields(self, request: HttpRequest, obj: Route | None = None) -> Any:
        """Lock which capability it is."""
        return ["project", "capability"] if obj else []

    def save_model(self, request: HttpRequest, obj: Route, form: Any, change: bool) -> None:
        """Choose the strategy."""
        actor = request.user.get_username()
        kept = routes.put(obj.project, obj.capability, obj.strategy, obj.weights, actor)
        obj.pk = kept.pk

    def delete_model(self, request: HttpRequest, obj: Route) -> None:
        """Let the pull decide again."""
        routes.drop(obj.project, obj.capability, request.user.get_username())

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Route]) -> None:
        """Do so for each of them."""
        for route in queryset:
            self.delete_model(request, route)
