"""The admin's menu: what people look for first, and the engine's own tables last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.urls import reverse

#: Title, whether it folds, and its pages: words, icon, app and model. By name: the ground knows no app above it.
_GROUPS: tuple[tuple[str, bool, tuple[tuple[str, str, str], ...]], ...] = (
    (
        "Work",
        False,
        (
            ("Runs", "play_circle", "tasks.run"),
            ("Tasks", "task_alt", "tasks.task"),
            ("Workflows", "account_tree", "workflows.workflow"),
            ("Schedules", "schedule", "workflows.schedule"),
        ),
    ),
    (
        "Agents",
        False,
        (
            ("Agents", "smart_toy", "agents.agent"),
            ("Hosts", "dns", "agents.host"),
            ("Pools", "group_work", "agents.pool"),
            ("Routes", "alt_route", "agents.route"),
            ("Breakers", "electrical_services", "agents.breaker"),
            ("Endpoints", "webhook", "agents.endpoint"),
        ),
    ),
    (
        "Webhooks",
        True,
        (
            ("Webhooks", "send", "webhooks.webhook"),
            ("Deliveries", "outbox", "webhooks.delivery"),
            ("Tries", "repeat", "webhooks.try"),
        ),
    ),
    (
        "Access",
        True,
        (
            ("Users", "person", "auth.user"),
            ("Groups", "groups", "auth.group"),
            ("API keys", "key", "opscore.apikey"),
            ("Secrets", "lock", "opscore.secret"),
            ("Projects", "folder", "opscore.project"),
            ("Memberships", "badge", "opscore.membership"),
            ("Audit log", "verified_user", "opscore.auditentry"),
        ),
    ),
    (
        "Records",
        True,
        (
            ("Events", "history", "opscore.event"),
            ("Attempts", "replay", "tasks.attempt"),
            ("Logs", "article", "tasks.tasklog"),
            ("Messages", "mail", "tasks.message"),
            ("Shared context", "share", "tasks.sharedentry"),
            ("Signals", "bolt", "tasks.signal"),
            ("Pauses", "pause_circle", "tasks.pause"),
            ("Sessions", "monitor_heart", "agents.agentsession"),
            ("Agents' output", "terminal", "agents.agentoutput"),
            ("Agents' usage", "memory", "agents.agentusage"),
            ("Workflow versions", "difference", "workflows.workflowversion"),
            ("Slots of schedules", "event_available", "workflows.slot"),
        ),
    ),
    (
        "Engine",
        True,
        (
            ("Queues", "queue", "agents.queue"),
            ("Sticky keys", "push_pin", "tasks.sticky"),
            ("Turns", "sync_alt", "tasks.turn"),
            ("Rate windows", "speed", "tasks.ratewindow"),
            ("Progress", "percent", "tasks.taskprogress"),
            ("Large results", "inventory_2", "tasks.payload"),
            ("Sizes of shared context", "straighten", "tasks.sharedtotal"),
            ("Rates of keys", "hourglass", "opscore.ratebucket"),
            ("Values that secrets had", "lock_clock", "opscore.oldsecret"),
            ("Head of the audit log", "link", "opscore.audithead"),
            ("Signs of life", "ecg_heart", "opscore.sign"),
            ("Failed logins", "no_accounts", "opscore.loginattempt"),
            ("Identities", "fingerprint", "opscore.oidcidentity"),
            ("Answers to idempotency keys", "reply", "opscore.idempotentanswer"),
        ),
    ),
)


def groups(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the menu as the theme wants it; whoever may not view a page does not see it."""
    home = {"title": "Home", "icon": "home", "link": reverse("admin:index")}
    named = [
        {
            "title": title,
            "separator": True,
            "collapsible": folds,
            "items": [_item(*page) for page in pages],
        }
        for title, folds, pages in _GROUPS
    ]
    return [{"items": [home]}, *named]


def _item(title: str, icon: str, model: str) -> dict[str, Any]:
    app, _, name = model.partition(".")
    address = reverse(f"admin:{app}_{name}_changelist")
    return {"title": title, "icon": icon, "link": address, "permission": _may_view(app, name)}


def _may_view(app: str, name: str) -> Callable[[HttpRequest], bool]:
    return lambda request: request.user.has_perm(f"{app}.view_{name}")
