"""Webhooks, what they are to be sent, and every try to do so.

Deliveries are written by triggers of the database, in the transaction of what they tell of: see
`migrations/0001_initial.py`.
"""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from opscore.ids import uuid7
from opscore.models import Project

STATUSES = ("pending", "sending", "delivered", "failed")
#: Statuses in which there is something left to do.
OPEN = ("pending", "sending")


class Webhook(models.Model):
    """An address of somebody else that is told what happens in a project."""

    #: Columns that hold secrets; `opscore.vault.reseal` encrypts them anew.
    sealed_fields = ("sealed", "old_sealed")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    project = models.ForeignKey(Project, models.CASCADE)
    name = models.CharField(max_length=80)
    url = models.CharField(max_length=2000)
    events = ArrayField(
        models.CharField(max_length=60),
        help_text="What it is told of: run.completed, task.* or *",
    )
    workflow = models.CharField(
        max_length=100, blank=True, help_text="Only runs of this workflow; empty: everything"
    )
    enabled = models.BooleanField(default=True)
    disabled_reason = models.CharField(max_length=300, blank=True, editable=False)
    sealed = models.BinaryField()
    old_sealed = models.BinaryField(null=True)
    old_until = models.DateTimeField(
        null=True, editable=False, help_text="Until then the secret before this one signs too"
    )
    failures = models.IntegerField(default=0, editable=False, help_text="Tries since the last 2xx")
    failing_since = models.DateTimeField(null=True, editable=False)
    last_at = models.DateTimeField(null=True, editable=False)
    last_status = models.SmallIntegerField(null=True, editable=False)
    last_error = models.CharField(max_length=300, blank=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    changed_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="webhook_once")]

    def __str__(self) -> str:
        return self.name


class Delivery(models.Model):
    """One thing that a webhook is told; kept after its end as the log of it."""

    # Without a foreign key: the engine, which writes rows here, must neither wait for somebody
    # who deletes a webhook nor fail because of him. Rows that he missed go with `clean_up`.
    webhook = models.ForeignKey(
        Webhook, models.CASCADE, related_name="deliveries", db_constraint=False
    )
    event = models.CharField(max_length=60)
    payload = models.JSONField(help_text="The body, before secrets are masked in it")
    status = models.CharField(
        max_length=9,
        default="pending",
        db_default="pending",
        choices=[(word, word) for word in STATUSES],
    )
    tries = models.SmallIntegerField(default=0, db_default=0, help_text="Of this round")
    due_at = models.DateTimeField(
        null=True,
        db_default=Now(),
        help_text="When it is tried next; while it is sent: when that counts as lost",
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "deliveries"
        constraints = [
            models.CheckConstraint(condition=Q(status__in=STATUSES), name="delivery_status")
        ]
        indexes = [
            models.Index(fields=["webhook", "-id"], name="delivery_recent"),
            models.Index(
                fields=["webhook", "due_at"],
                name="delivery_due",
                condition=Q(status__in=["pending", "sending"]),
            ),
            models.Index(fields=["created_at"], name="delivery_age"),
        ]

    def __str__(self) -> str:
        return f"{self.event} to {self.webhook.name}"


class Try(models.Model):
    """One request, and what came back."""

    delivery = models.ForeignKey(Delivery, models.CASCADE, related_name="attempts")
    at = models.DateTimeField(db_default=Now(), editable=False)
    status = models.SmallIntegerField(null=True, help_text="HTTP status; empty: no answer")
    error = models.CharField(max_length=300, blank=True)
    answer = models.TextField(blank=True, help_text="The beginning of what came back")
    duration_ms = models.IntegerField()

    class Meta:
        verbose_name_plural = "tries"

    def __str__(self) -> str:
        return f"{self.status or 'no answer'} at {self.at:%F %T}"
