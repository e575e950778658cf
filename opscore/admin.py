"""Admin of the ground: projects, keys, events, remembered answers; and what all admins share."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import display

from opscore import (
    admin_people,  # noqa: F401 - its pages register themselves
    keys,
)
from opscore.models import ApiKey, Event, IdempotentAnswer, Project

#: Colours of status words, the same on every page.
_COLOURS = {
    "completed": "green",
    "active": "green",
    "usable": "green",
    "live": "green",
    "running": "blue",
    "busy": "blue",
    "starting": "blue",
    "initializing": "blue",
    "queued": "primary",
    "created": "primary",
    "retrying": "orange",
    "waiting": "orange",
    "paused": "orange",
    "cancelling": "orange",
    "draining": "orange",
    "restarting": "orange",
    "expired": "orange",
    "silent": "orange",
    "lost": "orange",
    "failed": "red",
    "timeout": "red",
    "error": "red",
    "unresponsive": "red",
    "revoked": "red",
}
_LONGEST = 20_000


class ReadOnlyAdmin(ModelAdmin):
    """Rows that the engine owns: to look at, not to change."""

    list_per_page = 50
    # Counting a million rows takes longer than to show fifty of them.
    show_full_result_count = False
    list_filter_submit = False
    compressed_fields = True

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        """Return all fields: Django wants computed ones to be named here."""
        return self.fields or ()

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: the engine makes them."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Refuse: only the engine may change them."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Refuse: history stays."""
        return False


def badge(word: str) -> SafeString:
    """Return a status word as a coloured label."""
    colour = _COLOURS.get(word)
    # Classes that Unfold's own labels use: others are not in its style sheet.
    tone = (
        f"bg-{colour}-100 text-{colour}-700 dark:bg-{colour}-500/20 dark:text-{colour}-400"
        if colour
        else "bg-base-500/8 text-base-700 dark:bg-base-500/20 dark:text-base-200"
    )
    shape = "inline-block font-semibold rounded-default text-[11px] uppercase whitespace-nowrap h-6 leading-6 px-2"
    return format_html('<span class="{} {}">{}</span>', shape, tone, word)


def moment(field: str, title: str) -> Callable[[Any], SafeString | str]:
    """Return a column that shows a time to the second, on one line."""

    @display(description=title, ordering=field)
    def shown(row: Any) -> SafeString | str:
        at = getattr(row, field)
        return "–" if at is None else whole(f"{timezone.localtime(at):%Y-%m-%d %H:%M:%S}")

    return shown


def whole(text: str) -> SafeString:
    """Return text that is never broken into two lines."""
    return format_html('<span style="white-space:nowrap">{}</span>', text)


def pretty(value: Any) -> SafeString | str:
    """Return a JSON value as a readable block; '–' when there is none."""
    if value in (None, {}, []):
        return "–"
    text = json.dumps(value, indent=2, ensure_ascii=False)
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}\n… {len(text)} characters"
    return block(cut)


def block(text: str) -> SafeString:
    """Return text as it is, in a fixed font, scrolling inside its own box."""
    return format_html(
        '<pre style="max-height:28rem;overflow:auto;white-space:pre-wrap;'
        'font-size:12px;line-height:1.5;margin:0">{}</pre>',
        text,
    )


def link(row: Model | None, text: str = "") -> SafeString | str:
    """Return a link to a row's page in the admin; '–' when there is none."""
    if row is None:
        return "–"
    meta = row._meta  # noqa: SLF001 - Django's documented name
    address = reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[row.pk])
    style = "text-primary-600 dark:text-primary-500 whitespace-nowrap"
    return format_html('<a class="{}" href="{}">{}</a>', style, address, text or str(row))


def short(value: Any) -> str:
    """Return the tail of an id: the head of a UUIDv7 is the time and looks the same."""
    # A word joiner, so that the dots stay on the line of the digits.
    return f"…\N{WORD JOINER}{str(value)[-12:]}" if value else "–"


def duration(start: datetime | None, end: datetime | None) -> str:
    """Return seconds from start to end, or until now; '–' when it has not begun."""
    if start is None:
        return "–"
    return f"{((end or timezone.now()) - start).total_seconds():.2f}\N{NO-BREAK SPACE}s"


def message_of(error: Any) -> str:
    """Return the words of a structured error; '–' when there is none."""
    return str(error.get("message", ""))[:200] if isinstance(error, dict) else "–"


class ApiKeyForm(forms.ModelForm):  # type: ignore[type-arg]
    """A new key; its secret is drawn when it is saved."""

    scopes = forms.MultipleChoiceField(
        choices=[(scope, scope) for scope in keys.SCOPES],
        widget=forms.CheckboxSelectMultiple,
        initial=["read", "write"],
        help_text="admin includes all others",
    )

    class Meta:
        model = ApiKey
        fields = ["project", "name", "scopes", "expires_at"]


#: One list, because each call of `moment` makes another column.
_KEY_FIELDS = [
    "name",
    "prefix",
    "state",
    "shown_scopes",
    "project",
    moment("created_at", "created"),
    moment("last_used_at", "last used"),
    moment("expires_at", "expires"),
    moment("revoked_at", "revoked"),
]


@admin.register(ApiKey)
class ApiKeyAdmin(ModelAdmin):
    """Keys: made here, shown once, revoked here; never changed."""

    form = ApiKeyForm
    list_display = [
        "name",
        "shown_prefix",
        "state",
        "shown_scopes",
        "project",
        moment("last_used_at", "last used"),
        moment("expires_at", "expires"),
        moment("created_at", "created"),
    ]
    list_filter = ["project"]
    search_fields = ["name", "prefix"]
    list_select_related = ["project"]
    ordering = ["-id"]
    actions = ["revoke"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        """Leave out the keys of sessions: supervisors make and delete them."""
        keys: QuerySet[ApiKey] = super().get_queryset(request)
        return keys.filter(session_id=None)

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        """Ask for little when a key is made, show all of it later."""
        return _KEY_FIELDS if obj else ["project", "name", "scopes", "expires_at"]

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        """Lock a key once it is made."""
        return self.get_fields(request, obj) if obj else []

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Offer the default project."""
        return {"project": Project.objects.filter(slug="default").first()}

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        """Draw the secret of a new key and show it, once."""
        if change:
            return
        text = keys.give_secret(obj)
        super().save_model(request, obj, form, change)
        shown = format_html("Copy this key now, it is shown only once: <code>{}</code>", text)
        messages.warning(request, shown)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Refuse: a revoked key stays on record."""
        return False

    @admin.action(description="Revoke the selected keys")
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        """Revoke keys at once."""
        for key in queryset.select_related("project"):
            keys.revoke(key.project, key.prefix)
        self.message_user(request, "Revoked.")

    @display(description="state")
    def state(self, key: ApiKey) -> str:
        """Say whether the key works."""
        return badge(
            "usable" if keys.is_usable(key) else "revoked" if key.revoked_at else "expired"
        )

    @display(description="scopes")
    def shown_scopes(self, key: ApiKey) -> str:
        """List the scopes."""
        return ", ".join(key.scopes)

    @display(description="key", ordering="prefix")
    def shown_prefix(self, key: ApiKey) -> str:
        """Show the part of the key that is no secret."""
        return f"ok_{key.prefix}_…"


@admin.register(Project)
class ProjectAdmin(ModelAdmin):
    """Namespaces."""

    list_display = ["slug", moment("created_at", "created")]
    search_fields = ["slug"]
    ordering = ["slug"]

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
        "shown_data",
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

    @display(description="data")
    def shown_data(self, event: Event) -> str:
        """Show the data, readable."""
        return pretty(event.data)


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
        "shown_answer",
    ]

    @display(description="answer")
    def shown_answer(self, answer: IdempotentAnswer) -> str:
        """Show the answer, readable."""
        return pretty(answer.answer)
