"""Rows of what agents of one run exchange: entries of its shared context, and messages."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from opscore.ids import uuid7
from opscore.models import Project


class SharedTotal(models.Model):
    """What the shared context of one run holds in all; whoever writes to it locks this row."""

    run = models.OneToOneField("tasks.Run", models.CASCADE, related_name="shared_total")
    version = models.BigIntegerField(default=0, help_text="The last one that was given")
    entries = models.IntegerField(default=0)
    bytes = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.entries} entries, {self.bytes} bytes"


class SharedEntry(models.Model):
    """One value of a run's shared context."""

    run = models.ForeignKey("tasks.Run", models.CASCADE, related_name="shared")
    key = models.CharField(max_length=200)
    version = models.BigIntegerField(help_text="Rises with every write; never comes back")
    value = models.JSONField()
    size = models.IntegerField(help_text="Bytes of the value as JSON")
    updated_at = models.DateTimeField(db_default=Now())
    updated_by = models.CharField(max_length=160, help_text="agent:<name> or key:<name>")

    class Meta:
        verbose_name_plural = "shared entries"
        constraints = [models.UniqueConstraint(fields=["run", "key"], name="shared_once")]

    def __str__(self) -> str:
        return f"{self.key} v{self.version}"


class Message(models.Model):
    """What one agent tells another one, or one agent of a capability; at least once."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    project = models.ForeignKey(Project, models.CASCADE)
    run = models.ForeignKey("tasks.Run", models.CASCADE, related_name="messages")
    to_agent = models.ForeignKey(
        "agents.Agent", models.CASCADE, null=True, blank=True, related_name="+"
    )
    to_capability = models.CharField(max_length=100, blank=True)
    topic = models.CharField(max_length=100)
    body = models.JSONField()
    sender = models.CharField(max_length=160, help_text="agent:<name> or key:<name>")
    sent_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    receipt = models.UUIDField(null=True, blank=True, help_text="Of who holds it or held it last")
    session_id = models.UUIDField(null=True, blank=True, help_text="Who holds it or held it last")
    lease_until = models.DateTimeField(null=True, blank=True)
    deliveries = models.IntegerField(default=0)
    acknowledged_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(to_agent__isnull=False) ^ ~Q(to_capability=""), name="message_to_one"
            )
        ]
        indexes = [
            models.Index(
                fields=["to_agent", "id"],
                name="message_agent",
                condition=Q(acknowledged_at__isnull=True),
            ),
            models.Index(
                fields=["project", "to_capability", "id"],
                name="message_capability",
                condition=Q(acknowledged_at__isnull=True),
            ),
            models.Index(
                fields=["run"], name="message_open", condition=Q(acknowledged_at__isnull=True)
            ),
            # The cleaner looks for these.
            models.Index(fields=["expires_at"], name="message_expiry"),
            models.Index(
                fields=["acknowledged_at"],
                name="message_done",
                condition=Q(acknowledged_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.topic} to {self.to_capability or self.to_agent}"
