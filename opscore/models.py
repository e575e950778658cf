"""Projects, API keys, events, remembered answers: what every app stands on."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

#: The longest name of an API key.
NAME_LENGTH = 100


class Project(models.Model):
    """A namespace: every row, queue, key and idempotency key belongs to one."""

    slug = models.SlugField(max_length=40, unique=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    def __str__(self) -> str:
        return self.slug


class ApiKey(models.Model):
    """A hashed API key. The secret itself is shown once, at creation, and never stored."""

    project = models.ForeignKey(Project, models.CASCADE)
    name = models.CharField(max_length=NAME_LENGTH)
    prefix = models.CharField(max_length=16, unique=True)
    digest = models.CharField(max_length=64, help_text="SHA-256 of the whole key, hex")
    scopes = ArrayField(models.CharField(max_length=20))
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class Event(models.Model):
    """One append-only row about something that people want to know later."""

    project = models.ForeignKey(Project, models.CASCADE)
    at = models.DateTimeField(db_default=Now(), editable=False)
    kind = models.CharField(max_length=60, help_text="What happened: task.retrying, agent.lost")
    run_id = models.UUIDField(null=True, blank=True)
    task_id = models.UUIDField(null=True, blank=True)
    agent_id = models.UUIDField(null=True, blank=True)
    actor = models.CharField(max_length=100, blank=True, help_text="Who did it; empty: the engine")
    data = models.JSONField(default=dict, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["run_id", "id"], name="event_run"),
            models.Index(fields=["task_id", "id"], name="event_task"),
            models.Index(fields=["agent_id", "id"], name="event_agent"),
            models.Index(fields=["project", "-id"], name="event_recent"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} at {self.at:%F %T}"


class IdempotentAnswer(models.Model):
    """The answer that was given to an Idempotency-Key, for those who ask again."""

    project = models.ForeignKey(Project, models.CASCADE)
    key = models.CharField(max_length=255)
    target = models.CharField(max_length=255, help_text="Method and path")
    body_digest = models.CharField(max_length=64)
    status = models.SmallIntegerField(default=0, help_text="0 while the first request runs")
    answer = models.JSONField(null=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "key", "target"], name="answer_once")
        ]
        indexes = [models.Index(fields=["created_at"], name="answer_age")]

    def __str__(self) -> str:
        return f"{self.target} {self.key}"
