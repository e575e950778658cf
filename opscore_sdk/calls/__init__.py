"""What the API does: one talk for each call, shared by both clients."""

from opscore_sdk.calls import (
    agents,
    breakers,
    executor,
    keys,
    platform,
    records,
    runs,
    schedules,
    secrets,
    streams,
    tasks,
    webhooks,
    workflows,
)

__all__ = [
    "agents",
    "breakers",
    "executor",
    "keys",
    "platform",
    "records",
    "runs",
    "schedules",
    "secrets",
    "streams",
    "tasks",
    "webhooks",
    "workflows",
]
