"""What people do with webhooks: create, change, rotate, test, redeliver, delete."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.utils import IntegrityError

from agents import addresses
from opscore.config import load_config
from opscore.database import database_now
from opscore.errors import ConflictError, InvalidError, NotFoundError, Problem
from opscore.logs import get_logger
from opscore.lookup import by_id_or_name
from opscore.models import Event, Project
from opscore.sealing import seal
from webhooks import kinds, signing
from webhooks.models import Delivery, Webhook

log = get_logger(__name__)

MAX_WEBHOOKS = 50
#: What PATCH changes, and what an ETag stands for.
SAID = ("name", "url", "events", "workflow", "enabled")


def create(
    project: Project, *, actor: str = "", events: list[str], **fields: Any
) -> tuple[Webhook, str]:
    """Keep a new webhook; return it with its secret, which nobody can read again.

    Raises InvalidError with every problem, ConflictError when the name is taken.
    """
    secret = signing.new_secret()
    hook = Webhook(project=project, events=events, sealed=seal(secret), **fields)
    check({name: getattr(hook, name) for name in SAID})
    with transaction.atomic():
        Project.objects.select_for_update(no_key=True).get(pk=project.pk)
        if Webhook.objects.filter(project=project).count() >= MAX_WEBHOOKS:
            raise InvalidError(f"A project has at most {MAX_WEBHOOKS} webhooks.")
        # Before the row: it need not be told of itself.
        note(hook, "created", actor)
        _save(hook, force_insert=True)
    hook.refresh_from_db()
    return hook, secret


def change(project: Project, ref: str, *, actor: str = "", **fields: Any) -> Webhook:
    """Change a webhook; to enable it forgets its failures. Raises as `create`, NotFoundError."""
    check(fields)
    with transaction.atomic():
        hook = _locked(project, ref)
        changed = {name: value for name, value in fields.items() if getattr(hook, name) != value}
        for name, value in changed.items():
            setattr(hook, name, value)
        if "enabled" in changed:
            hook.disabled_reason, hook.failures, hook.failing_since = "", 0, None
        if changed:
            hook.changed_at = database_now()
            _save(hook)
            note(hook, "changed", actor, fields=sorted(changed))
    return hook


def delete(project: Project, ref: str, *, actor: str = "") -> None:
    """Delete a webhook with the log of its deliveries. Raises NotFoundError."""
    with transaction.atomic():
        hook = _locked(project, ref)
        note(hook, "deleted", actor)
        hook.delete()


def rotate(
    project: Project, ref: str, *, overlap: timedelta, actor: str = ""
) -> tuple[Webhook, str]:
    """Give a webhook another secret and return it; the one before signs too during `overlap`."""
    secret = signing.new_secret()
    with transaction.atomic():
        hook = _locked(project, ref)
        hook.old_sealed, hook.sealed = hook.sealed, seal(secret)
        hook.old_until = database_now() + overlap
        hook.save(update_fields=["sealed", "old_sealed", "old_until"])
        note(hook, "secret_rotated", actor)
    return hook, secret


def send_test(hook: Webhook) -> Delivery:
    """Have a webhook be sent a test event. Raises ConflictError while it is disabled."""
    _refuse_disabled(hook)
    data: dict[str, Any] = {"project": hook.project.slug, "run": None, "task": None, "agent": None}
    data |= {"actor": "", "details": {"message": f"A test of the webhook {hook.name}."}}
    payload = {"type": kinds.TEST, "timestamp": database_now().isoformat(), "data": data}
    made = Delivery.objects.create(webhook=hook, event=kinds.TEST, payload=payload)
    made.refresh_from_db()
    return made


def redeliver(hook: Webhook, delivery_id: int) -> Delivery:
    """Send a delivery once more, now, with all its tries; its log goes on.

    Raises NotFoundError, and ConflictError while it is sent or the webhook is disabled.
    """
    _refuse_disabled(hook)
    with transaction.atomic():
        found = Delivery.objects.select_for_update().filter(webhook=hook, pk=delivery_id).first()
        if found is None:
            raise NotFoundError(f"The webhook {hook.name!r} has no delivery {delivery_id}.")
        if found.status == "sending":
            raise ConflictError("It is being sent just now.")
        found.status, found.tries, found.due_at, found.ended_at = "pending", 0, database_now(), None
        found.save(update_fields=["status", "tries", "due_at", "ended_at"])
    return found


def find(project: Project, ref: str) -> Webhook:
    """Return a webhook by id or name; raises NotFoundError."""
    rows = Webhook.objects.filter(project=project).select_related("project")
    return by_id_or_name(rows, ref, "webhook")


def check(said: Mapping[str, Any]) -> None:
    """Raise InvalidError with all that is wrong with what is said of a webhook."""
    problems = kinds.problems_of(said["events"]) if "events" in said else []
    if "name" in said and not said["name"].strip():
        problems.append(Problem("must not be blank", "name"))
    if "url" in said:
        try:
            allowed = addresses.networks(load_config().push_networks)
            addresses.check(addresses.parse_url(said["url"]), allowed)
        except InvalidError as error:
            problems += error.problems
    if problems:
        raise InvalidError("This cannot be a webhook.", problems)


def note(hook: Webhook, verb: str, actor: str = "", **data: Any) -> None:
    """Keep an event about a webhook."""
    said = {"webhook": hook.name, **data}
    kind = f"webhook.{verb}"
    Event.objects.create(project_id=hook.project_id, kind=kind, actor=actor[:100], data=said)
    log.info(kind, project=hook.project_id, **said)


def _locked(project: Project, ref: str) -> Webhook:
    rows = Webhook.objects.filter(project=project).select_for_update(no_key=True)
    return by_id_or_name(rows, ref, "webhook")


def _save(hook: Webhook, **how: Any) -> None:
    try:
        with transaction.atomic():
            hook.save(**how)
    except IntegrityError:
        raise ConflictError(f"There is a webhook {hook.name!r} already.") from None


def _refuse_disabled(hook: Webhook) -> None:
    if not hook.enabled:
        raise ConflictError(f"The webhook {hook.name!r} is disabled: enable it first.")
