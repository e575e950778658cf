"""Admin pages of webhooks and of what they were told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from unfold.decorators import display

from opscore.admin_columns import badge, block, label, link, moment, pretty
from opscore.admin_site import OurAdmin, ReadOnlyAdmin, ReadOnlyInline
from opscore.errors import InvalidError, OpsCoreError
from opscore.models import Project
from webhooks import hooks, outbox
from webhooks.models import Delivery, Try, Webhook

_OVERLAP = timedelta(days=1)


class WebhookForm(forms.ModelForm):  # type: ignore[type-arg]
    """Who is told, and of what."""

    class Meta:
        model = Webhook
        fields = ["project", "name", "url", "events", "workflow", "enabled"]

    def clean(self) -> dict[str, Any]:
        """Refuse what `webhooks.hooks` would refuse, beside the field that is wrong."""
        said: dict[str, Any] = super().clean() or {}
        try:
            hooks.check({name: said[name] for name in hooks.SAID if name in said})
        except InvalidError as error:
            for problem in error.problems:
                self.add_error(problem.path.partition("[")[0], problem.message)
        return said


#: One list, because each call of `moment` makes another column.
_FARES = [
    "state",
    "disabled_reason",
    "last_answer",
    moment("last_at", "last try"),
    moment("failing_since", "failing since"),
    moment("old_until", "old secret signs until"),
    moment("created_at", "created"),
    moment("changed_at", "changed"),
]


@admin.register(Webhook)
class WebhookAdmin(OurAdmin):
    """Webhooks: made here, their secret shown once, changed, rotated, tested."""

    form = WebhookForm
    list_display = [
        "name",
        "state",
        "url",
        "shown_events",
        "project",
        "last_answer",
        moment("last_at", "last try"),
    ]
    list_filter = ["enabled", "project"]
    list_select_related = ["project"]
    search_fields = ["name", "url"]
    ordering = ["name"]
    actions = ["enable", "disable", "rotate", "send_test"]

    def get_fields(self, request: HttpRequest, obj: Webhook | None = None) -> Any:
        """Show how it fares, once there is one."""
        return [*WebhookForm.Meta.fields, *(_FARES if obj else [])]

    def get_readonly_fields(self, request: HttpRequest, obj: Webhook | None = None) -> Any:
        """Lock the project, and what the sender writes."""
        return ["project", *_FARES] if obj else []

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Offer the default project, and everything."""
        return {"project": Project.objects.filter(slug="default").first(), "events": "*"}

    def save_model(self, request: HttpRequest, obj: Webhook, form: Any, change: bool) -> None:
        """Keep it by the same rules as the API."""
        said = {name: form.cleaned_data[name] for name in hooks.SAID}
        actor = request.user.get_username()
        if change:
            hooks.change(obj.project, str(obj.pk), actor=actor, **said)
            return
        made, secret = hooks.create(obj.project, actor=actor, **said)
        obj.pk = made.pk
        _show(request, made, secret)

    def delete_model(self, request: HttpRequest, obj: Webhook) -> None:
        """Delete it, and say who did."""
        hooks.delete(obj.project, str(obj.pk), actor=request.user.get_username())

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        """Do so for each of them."""
        for hook in queryset.select_related("project"):
            self.delete_model(request, hook)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Ask for no right to delete deliveries one by one: they go with their webhook."""
        shown, counts, _, protected = super().get_deleted_objects(objs, request)
        return shown[:20], counts, set(), protected

    @admin.action(description="Enable the selected webhooks")
    def enable(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        """Have them be told again; what waits for them is sent."""
        self._each(request, queryset, lambda hook, by: _switch(hook, by, enabled=True))

    @admin.action(description="Disable the selected webhooks")
    def disable(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        """Have them be told nothing."""
        self._each(request, queryset, lambda hook, by: _switch(hook, by, enabled=False))

    @admin.action(
        description="Change the secrets of the selected webhooks: old ones sign for a day"
    )
    def rotate(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        """Draw another secret for each and show it, once."""

        def draw(hook: Webhook, by: str) -> None:
            ref = str(hook.pk)
            _show(request, *hooks.rotate(hook.project, ref, overlap=_OVERLAP, actor=by))

        self._each(request, queryset, draw)

    @admin.action(description="Send a test event to the selected webhooks")
    def send_test(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        """Send `webhook.test`."""
        self._each(request, queryset, lambda hook, by: hooks.send_test(hook))

    def _each(
        self,
        request: HttpRequest,
        queryset: QuerySet[Webhook],
        act: Callable[[Webhook, str], object],
    ) -> None:
        for hook in queryset.select_related("project"):
            try:
                act(hook, request.user.get_username())
            except OpsCoreError as error:
                self.message_user(request, str(error), messages.ERROR)

    @display(description="state")
    def state(self, hook: Webhook) -> str:
        """Say whether it is told, and whether that works."""
        if not hook.enabled:
            return badge("disabled")
        return badge("failed" if hook.failing_since else "active")

    @display(description="events")
    def shown_events(self, hook: Webhook) -> str:
        """List what it is told of."""
        return ", ".join(hook.events)

    @display(description="last answer", ordering="last_status")
    def last_answer(self, hook: Webhook) -> str:
        """Say what came back last."""
        if hook.last_at is None:
            return "–"
        return hook.last_error or f"HTTP {hook.last_status}"


class TryInline(ReadOnlyInline):
    """The tries of a delivery."""

    model = Try
    verbose_name_plural = "Tries"
    fields = ["at", "status", "error", "duration_ms", "shown_answer"]
    readonly_fields = fields
    ordering = ["id"]

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Refuse: history stays."""
        return False

    @display(description="answer")
    def shown_answer(self, tried: Try) -> str:
        """Show the beginning of what came back."""
        return block(tried.answer) if tried.answer else "–"


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin):
    """What webhooks were told, and are still to be told."""

    project_path = "webhook__project"
    fields = [
        "event",
        label("status", "status"),
        "shown_webhook",
        "tries",
        "due_at",
        "created_at",
        "ended_at",
        "shown_body",
    ]
    list_display = [
        "event",
        label("status", "status"),
        "shown_webhook",
        "tries",
        moment("due_at", "due"),
        moment("created_at", "created"),
        moment("ended_at", "ended"),
    ]
    list_filter = ["status", "webhook"]
    list_select_related = ["webhook"]
    search_fields = ["event"]
    ordering = ["-id"]
    inlines = [TryInline]
    actions = ["redeliver"]

    @admin.action(description="Send the selected deliveries again")
    def redeliver(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> None:
        """Send them now, under the same ids."""
        for delivery in queryset.select_related("webhook"):
            try:
                hooks.redeliver(delivery.webhook, delivery.pk)
            except OpsCoreError as error:
                self.message_user(request, str(error), messages.ERROR)

    @display(description="webhook", ordering="webhook__name")
    def shown_webhook(self, delivery: Delivery) -> str:
        """Link to the webhook."""
        return link(delivery.webhook)

    @display(description="body")
    def shown_body(self, delivery: Delivery) -> str:
        """Show what is sent, secrets masked."""
        return pretty(outbox.body_of(delivery.webhook.project_id, delivery.payload))


@admin.register(Try)
class TryAdmin(ReadOnlyAdmin):
    """All tries."""

    project_path = "delivery__webhook__project"
    fields = ["delivery", "at", "status", "error", "duration_ms", "answer"]
    list_display = ["delivery", moment("at", "at"), "status", "error", "duration_ms"]
    list_select_related = ["delivery__webhook"]
    search_fields = ["error"]
    ordering = ["-id"]


def _switch(hook: Webhook, by: str, *, enabled: bool) -> None:
    hooks.change(hook.project, str(hook.pk), actor=by, enabled=enabled)


def _show(request: HttpRequest, hook: Webhook, secret: str) -> None:
    words = "Copy the secret of {} now, it is shown only once: <code>{}</code>"
    messages.warning(request, format_html(words, hook.name, secret))
