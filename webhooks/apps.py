"""Wiring of the webhooks app."""

from __future__ import annotations

from django.apps import AppConfig


class WebhooksConfig(AppConfig):
    """Tells others what happens here."""

    name = "webhooks"
