"""Webhooks, their deliveries and tries as JSON."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from opscore.api.endpoint import StrictSerializer
from opscore.api.schema import name_enum
from webhooks import kinds, outbox
from webhooks.models import STATUSES, Delivery, Try, Webhook

name_enum("DeliveryStatus", STATUSES)
#: Long enough to change a secret in all receivers, short enough that it is not forgotten.
_LONGEST_OVERLAP_S = 30 * 24 * 3600


class WebhookSerializer(serializers.ModelSerializer[Webhook]):
    """A webhook, without its secret."""

    old_secret_until = serializers.DateTimeField(
        source="old_until",
        read_only=True,
        allow_null=True,
        help_text="Until then two secrets sign.",
    )

    class Meta:
        model = Webhook
        fields = [
            "id",
            "name",
            "url",
            "events",
            "workflow",
            "enabled",
            "disabled_reason",
            "failures",
            "failing_since",
            "last_at",
            "last_status",
            "last_error",
            "old_secret_until",
            "created_at",
            "changed_at",
        ]


class NewSecretSerializer(WebhookSerializer):
    """A webhook whose secret was drawn just now."""

    secret = serializers.CharField(
        allow_null=True,
        help_text="What requests are signed with, shown only here; null to a request sent again.",
    )

    class Meta(WebhookSerializer.Meta):
        fields = [*WebhookSerializer.Meta.fields, "secret"]


class ChangeWebhookSerializer(StrictSerializer):
    """What `PATCH /webhooks/{ref}` takes."""

    name = serializers.CharField(max_length=80, required=False)
    url = serializers.CharField(max_length=2000, required=False, help_text="https://…")
    events = serializers.ListField(
        child=serializers.CharField(max_length=60),
        min_length=1,
        max_length=kinds.MAX_PATTERNS,
        required=False,
        help_text="What it is told of: run.completed, all of an area as task.*, or *.",
    )
    workflow = serializers.CharField(
        max_length=100,
        required=False,
        allow_blank=True,
        help_text="Only what belongs to runs of this workflow; empty: everything.",
    )
    enabled = serializers.BooleanField(
        required=False, help_text="While it is not, nothing new is kept for it."
    )


class CreateWebhookSerializer(ChangeWebhookSerializer):
    """What `POST /webhooks` takes."""

    name = serializers.CharField(max_length=80)
    url = serializers.CharField(max_length=2000, help_text="https://…")
    events = serializers.ListField(
        child=serializers.CharField(max_length=60),
        min_length=1,
        max_length=kinds.MAX_PATTERNS,
        default=lambda: [kinds.ALL],
        help_text="What it is told of: run.completed, all of an area as task.*, or *. Default: *.",
    )


class RotateSecretSerializer(StrictSerializer):
    """How a secret is replaced."""

    overlap_s = serializers.FloatField(
        min_value=0,
        max_value=_LONGEST_OVERLAP_S,
        default=24 * 3600,
        help_text="Seconds for which the old secret signs too.",
    )


class DeliveryTrySerializer(serializers.ModelSerializer[Try]):
    """One request, and what came back."""

    class Meta:
        model = Try
        fields = ["at", "status", "error", "answer", "duration_ms"]


class DeliverySerializer(serializers.ModelSerializer[Delivery]):
    """One thing that a webhook is told."""

    status = serializers.ChoiceField(STATUSES)
    last_status = serializers.SerializerMethodField(help_text="HTTP status of the last try.")
    last_error = serializers.SerializerMethodField(help_text="Why the last try failed.")

    class Meta:
        model = Delivery
        fields = [
            "id",
            "event",
            "status",
            "tries",
            "last_status",
            "last_error",
            "due_at",
            "created_at",
            "ended_at",
        ]

    def get_last_status(self, delivery: Delivery) -> int | None:
        """Return what was answered last."""
        last = _last(delivery)
        return last.status if last else None

    def get_last_error(self, delivery: Delivery) -> str:
        """Return why the last try failed."""
        last = _last(delivery)
        return last.error if last else ""


class DeliveryDetailSerializer(DeliverySerializer):
    """A delivery with what is sent and every try."""

    message_id = serializers.SerializerMethodField(
        help_text="The header `webhook-id`: the same for every try and redelivery."
    )
    body = serializers.SerializerMethodField(help_text="What is sent.")
    attempts = DeliveryTrySerializer(many=True)

    class Meta(DeliverySerializer.Meta):
        fields = [*DeliverySerializer.Meta.fields, "message_id", "body", "attempts"]

    def get_message_id(self, delivery: Delivery) -> str:
        """Return the id that its receiver sees."""
        return outbox.message_id(delivery.webhook_id, delivery.pk)

    @extend_schema_field({"type": "object", "additionalProperties": {}})
    def get_body(self, delivery: Delivery) -> dict[str, Any]:
        """Return the body, secrets masked."""
        return outbox.body_of(delivery.webhook.project_id, delivery.payload)


def _last(delivery: Delivery) -> Try | None:
    tries = sorted(delivery.attempts.all(), key=lambda one: one.pk)
    return tries[-1] if tries else None
