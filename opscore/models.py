"""Projects, API keys, events, remembered answers: what every app stands on."""

from __future__ import annotations

from uuid import UUID

from django.conf import settings
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
    session_id = models.UUIDField(
        null=True,
        blank=True,
        editable=False,
        help_text="The only agent session that it may act for; such a key goes with its session",
    )
    agent_id = models.UUIDField(
        null=True, blank=True, editable=False, help_text="The only agent that it may act as"
    )
    #: The only (task, fence) that it is good for; None: all (see `opscore.attempt_tokens`).
    attempt: tuple[UUID, int] | None = None

    class Meta:
        verbose_name = "API key"
        indexes = [
            models.Index(
                fields=["session_id"],
                name="key_of_session",
                condition=models.Q(session_id__isnull=False),
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class Secret(models.Model):
    """A value that only executors read; encrypted (see `opscore.sealing`)."""

    #: Columns that hold secrets; `opscore.vault.reseal` encrypts them anew.
    sealed_fields = ("sealed",)

    project = models.ForeignKey(Project, models.CASCADE)
    name = models.CharField(max_length=64, help_text="As in ${{ secrets.NAME }}")
    sealed = models.BinaryField()
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    changed_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="secret_once")]

    def __str__(self) -> str:
        return self.name


class OldSecret(models.Model):
    """A value that a secret had; kept for a while, because tasks that got it may still tell it."""

    project = models.ForeignKey(Project, models.CASCADE)
    sealed = models.BinaryField()
    replaced_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        indexes = [models.Index(fields=["project", "-id"], name="old_secret_recent")]

    def __str__(self) -> str:
        return f"replaced at {self.replaced_at:%F %T}"


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


class AuditEntry(models.Model):
    """One row of the audit log: who did what from where. A trigger keeps it as it is.

    The sealer gives it its number and hash; until then they are empty. See `opscore.audit`.
    """

    number = models.BigIntegerField(null=True, unique=True, editable=False)
    at = models.DateTimeField(db_default=Now(), editable=False)
    project = models.ForeignKey(Project, models.PROTECT, null=True)
    actor = models.CharField(max_length=150, blank=True, help_text="Name of the key or the user")
    actor_kind = models.CharField(max_length=10, blank=True)
    key = models.CharField(max_length=16, blank=True, help_text="Prefix of the API key")
    address = models.GenericIPAddressField(null=True)
    request_id = models.CharField(max_length=100, blank=True)
    action = models.CharField(max_length=120, help_text="Method and route, or what was done")
    target = models.CharField(max_length=300, blank=True, help_text="What it was done to")
    status = models.SmallIntegerField(null=True, help_text="HTTP status of the answer")
    data = models.JSONField(default=dict, blank=True)
    previous = models.CharField(max_length=64, blank=True, editable=False)
    hash = models.CharField(max_length=64, blank=True, editable=False)

    class Meta:
        verbose_name = "audit entry"
        verbose_name_plural = "audit log"
        indexes = [
            models.Index(fields=["project", "-id"], name="audit_recent"),
            models.Index(
                fields=["id"], name="audit_unsealed", condition=models.Q(number__isnull=True)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.action} by {self.actor or 'nobody'}"


class AuditHead(models.Model):
    """One row: the last link of the audit log's chain, as the sealer left it."""

    number = models.BigIntegerField()
    hash = models.CharField(max_length=64)

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"


class Membership(models.Model):
    """A person of a project: sees its things in the admin. Superusers see all."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    project = models.ForeignKey(Project, models.CASCADE)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "project"], name="member_once")]

    def __str__(self) -> str:
        return f"{self.user} in {self.project}"


class OidcIdentity(models.Model):
    """Whom a provider of identities means by a subject; a name or an address would not do."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE)
    issuer = models.CharField(max_length=255)
    subject = models.CharField(max_length=255)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        verbose_name = "identity"
        verbose_name_plural = "identities"
        constraints = [models.UniqueConstraint(fields=["issuer", "subject"], name="identity_once")]

    def __str__(self) -> str:
        return f"{self.subject} of {self.issuer}"


class LoginAttempt(models.Model):
    """A login that has not succeeded."""

    account = models.CharField(max_length=64, help_text="Keyed digest of the name")
    address = models.CharField(max_length=45)
    at = models.DateTimeField()

    class Meta:
        indexes = [
            models.Index(fields=["address", "at"], name="login_recent"),
            models.Index(fields=["account", "at"], name="login_of_account"),
        ]

    def __str__(self) -> str:
        return f"{self.address} at {self.at:%F %T}"


class RateBucket(models.Model):
    """The requests that a key may send now. The table is not logged: a crash fills all buckets."""

    subject = models.CharField(max_length=40, primary_key=True, help_text="Key and kind of limit")
    tokens = models.FloatField()
    granted = models.FloatField(help_text="Tokens that were drawn last")
    filled_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.subject


class Sign(models.Model):
    """When a part of the platform that has no other row was heard of last."""

    BEAT = "beat"

    name = models.CharField(max_length=40, primary_key=True)
    seen_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"{self.name} at {self.seen_at:%F %T}"


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
