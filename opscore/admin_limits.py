"""Admin of the ground's own tables: buckets, logins that failed, heads. Superusers only."""

from __future__ import annotations

from django.contrib import admin

from opscore.admin_site import ReadOnlyAdmin
from opscore.models import AuditHead, LoginAttempt, OldSecret, RateBucket, Sign


@admin.register(RateBucket)
class RateBucketAdmin(ReadOnlyAdmin):
    """How many requests keys may send now."""

    project_path = ""
    list_display = ["subject", "tokens", "granted", "filled_at"]
    fields = list_display


@admin.register(LoginAttempt)
class LoginAttemptAdmin(ReadOnlyAdmin):
    """Logins that have not succeeded in the last minutes."""

    project_path = ""
    list_display = ["address", "at", "account"]
    ordering = ["-id"]
    fields = list_display


@admin.register(OldSecret)
class OldSecretAdmin(ReadOnlyAdmin):
    """When secrets were changed or deleted lately; their values are masked, and not shown."""

    project_path = ""
    list_display = ["project", "replaced_at"]
    ordering = ["-id"]
    fields = list_display


@admin.register(Sign)
class SignAdmin(ReadOnlyAdmin):
    """When parts of the platform without a row of their own were heard of last."""

    project_path = ""
    list_display = ["name", "seen_at"]
    fields = list_display


@admin.register(AuditHead)
class AuditHeadAdmin(ReadOnlyAdmin):
    """Where the next row of the audit log joins its chain."""

    project_path = ""
    list_display = ["number", "hash"]
    fields = list_display
