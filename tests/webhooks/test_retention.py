"""Old deliveries go with their tries, in batches; what is still to be told stays."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from opscore.config import load_config
from opscore.ids import uuid7
from opscore.models import Project
from webhooks.housekeeping import BATCH, clean_up, forget_deliveries
from webhooks.models import STATUSES, Delivery, Try, Webhook

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def week(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_config(), "webhook_retention_days", 7)


@pytest.fixture
def hook(project: Project) -> Webhook:
    said = {"name": "chat", "url": "https://x.example", "events": ["*"], "sealed": b""}
    return Webhook.objects.create(project=project, **said)


def delivery(hook: Webhook, status: str, days: float = 8) -> Delivery:
    made = Delivery.objects.create(webhook=hook, event="run.completed", payload={}, status=status)
    Delivery.objects.filter(pk=made.pk).update(created_at=timezone.now() - timedelta(days=days))
    Try.objects.create(delivery=made, duration_ms=1)
    return made


def test_ended_ones_go_with_their_tries(hook: Webhook) -> None:
    for status in STATUSES:
        delivery(hook, status)
    young = delivery(hook, "delivered", days=6)
    clean_up()
    left = Delivery.objects.order_by("id")
    assert [one.status for one in left] == ["pending", "sending", "delivered"]
    assert left.last() == young
    assert sorted(Try.objects.values_list("delivery_id", flat=True)) == [one.pk for one in left]


def test_what_nobody_will_send_goes(hook: Webhook) -> None:
    delivery(hook, "pending")
    Webhook.objects.update(enabled=False)
    orphan = delivery(hook, "pending")
    Delivery.objects.filter(pk=orphan.pk).update(webhook_id=uuid7())
    clean_up()
    assert not Delivery.objects.exists()


def test_all_are_kept_where_nothing_is_forgotten(
    hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_config(), "webhook_retention_days", 0)
    delivery(hook, "delivered", days=4000)
    clean_up()
    assert Delivery.objects.exists()


def test_they_go_in_batches(hook: Webhook) -> None:
    old = {"event": "x", "payload": {}, "status": "failed", "webhook": hook}
    Delivery.objects.bulk_create(Delivery(**old) for _ in range(BATCH + 1))
    Delivery.objects.update(created_at=timezone.now() - timedelta(days=8))
    assert forget_deliveries()
    assert Delivery.objects.count() == 1
    assert not forget_deliveries()
