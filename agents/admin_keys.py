"""Admin of API keys; beside the agents, because a key may be bound to one of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.decorators import display

from agents.models import Agent
from opscore import keys
from opscore.admin_columns import badge, link, moment
from opscore.admin_site import OurAdmin, limited
from opscore.errors import OpsCoreError
from opscore.models import ApiKey, Project

_OVERLAP = timedelta(hours=1)


class ApiKeyForm(forms.ModelForm):  # type: ignore[type-arg]
    """A new key; its secret is drawn when it is saved."""

    scopes = forms.MultipleChoiceField(
        choices=[(scope, scope) for scope in keys.SCOPES],
        widget=forms.CheckboxSelectMultiple,
        initial=["read", "write"],
        help_text="admin includes all others",
    )
    agent = forms.ModelChoiceField(
        Agent.objects.order_by("name"),
        required=False,
        help_text="The only agent that it may act as; its only scope is agent then",
    )

    class Meta:
        model = ApiKey
        fields = ["project", "name", "scopes", "expires_at"]

    #: Who looks at the form; set for each request.
    people: ClassVar[HttpRequest]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "agent" in self.fields:
            self.fields["agent"].queryset = limited(  # type: ignore[attr-defined]
                self.people, Agent.objects.order_by("name")
            )

    def clean(self) -> dict[str, Any] | None:
        """Refuse an agent of another project, and other scopes than `agent` beside an agent."""
        cleaned = super().clean() or {}
        agent = cleaned.get("agent")
        if agent is None:
            return cleaned
        if agent.project != cleaned.get("project"):
            self.add_error("agent", "This agent belongs to another project.")
        if cleaned.get("scopes") != ["agent"]:
            self.add_error("scopes", "The key of one agent has the scope agent, and no other.")
        self.instance.agent_id = agent.pk
        return cleaned


#: One list, because each call of `moment` makes another column.
_KEY_FIELDS = [
    "name",
    "prefix",
    "state",
    "shown_scopes",
    "project",
    "shown_agent",
    moment("created_at", "created"),
    moment("last_used_at", "last used"),
    moment("expires_at", "expires"),
    moment("revoked_at", "revoked"),
]


@admin.register(ApiKey)
class ApiKeyAdmin(OurAdmin):
    """Keys: made here, shown once, rotated and revoked here; never changed."""

    form = ApiKeyForm
    list_display = [
        "name",
        "shown_prefix",
        "state",
        "shown_scopes",
        "project",
        "shown_agent",
        moment("last_used_at", "last used"),
        moment("expires_at", "expires"),
        moment("created_at", "created"),
    ]
    list_filter = ["project"]
    search_fields = ["name", "prefix"]
    list_select_related = ["project"]
    ordering = ["-id"]
    actions = ["rotate", "revoke"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        """Leave out the keys of sessions: supervisors make and delete them."""
        keys: QuerySet[ApiKey] = super().get_queryset(request)
        return keys.filter(session_id=None)

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        """Ask for little when a key is made, show all of it later."""
        return _KEY_FIELDS if obj else ["project", "name", "scopes", "agent", "expires_at"]

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        """Lock a key once it is made."""
        return self.get_fields(request, obj) if obj else []

    def get_form(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Offer the agents of one's own projects."""
        form = super().get_form(request, *args, **kwargs)
        form.people = request
        return form

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Offer the default project."""
        return {"project": Project.objects.filter(slug="default").first()}

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        """Draw the secret of a new key and show it, once."""
        if change:
            return
        obj.shown = keys.give_secret(obj)  # type: ignore[attr-defined]
        super().save_model(request, obj, form, change)

    def response_add(self, request: HttpRequest, obj: ApiKey, *args: Any) -> HttpResponse:
        """Show the new key in this very answer."""
        return self._shown(request, [(obj.name, obj.shown)])  # type: ignore[attr-defined]

    def _shown(self, request: HttpRequest, made: list[tuple[str, str]]) -> HttpResponse:
        # Not as a message: those stand in a cookie or in the session until they are read.
        context = {
            **self.admin_site.each_context(request),
            "title": "New keys",
            "made": made,
            "back": reverse("admin:opscore_apikey_changelist"),
        }
        return TemplateResponse(request, "admin/new_keys.html", context)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Refuse: a revoked key stays on record."""
        return False

    @admin.action(description="Rotate the selected keys: the old ones work for an hour")
    def rotate(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse | None:
        """Make the successor of each key and show it, once."""
        made = []
        for key in queryset:
            try:
                made.append((key.name, keys.rotate(key, overlap=_OVERLAP)[1]))
            except OpsCoreError as error:
                self.message_user(request, str(error), messages.ERROR)
        return self._shown(request, made) if made else None

    @admin.action(description="Revoke the selected keys")
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        """Revoke keys at once."""
        for key in queryset.select_related("project"):
            keys.revoke(key.project, key.prefix)
        self.message_user(request, "Revoked.")

    @display(description="state")
    def state(self, key: ApiKey) -> str:
        """Say whether the key works."""
        return badge(keys.state_of(key))

    @display(description="scopes")
    def shown_scopes(self, key: ApiKey) -> str:
        """List the scopes."""
        return ", ".join(key.scopes)

    @display(description="only as")
    def shown_agent(self, key: ApiKey) -> str:
        """Link to the only agent that the key may act as."""
        return link(Agent.objects.filter(pk=key.agent_id).first() if key.agent_id else None)

    @display(description="key", ordering="prefix")
    def shown_prefix(self, key: ApiKey) -> str:
        """Show the part of the key that is no secret."""
        return f"ok_{key.prefix}_…"
