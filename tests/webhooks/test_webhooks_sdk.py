"""Webhooks by SDK and command."""

from __future__ import annotations

import json
from typing import Any

import pytest

from opscore_sdk import Client, NotFoundError
from tests.live_server import server, server_url
from tests.sdk.conftest import client, opscore
from webhooks.models import Delivery

__all__ = ["client", "opscore", "server", "server_url"]

pytestmark = pytest.mark.django_db(transaction=True)
URL = "http://hooks.invalid/"


def test_the_client_does_all_of_it(client: Client) -> None:
    made = client.create_webhook("chat", URL, events=["run.*"], workflow="flow")
    assert (made["events"], made["workflow"], made["secret"][:6]) == (["run.*"], "flow", "whsec_")
    assert client.webhook("chat")["id"] == made["id"]
    assert client.change_webhook("chat", events=["*"])["events"] == ["*"]
    assert client.rotate_webhook("chat", overlap_s=5)["secret"] != made["secret"]
    sent = client.test_webhook("chat")
    [told] = client.deliveries("chat", event="webhook.test")
    assert told["id"] == sent["id"]
    assert client.delivery("chat", sent["id"])["body"]["type"] == "webhook.test"
    Delivery.objects.update(status="failed")
    assert client.redeliver("chat", sent["id"])["status"] == "pending"
    assert [row["name"] for row in client.webhooks(enabled="true")] == ["chat"]
    client.delete_webhook("chat")
    with pytest.raises(NotFoundError):
        client.webhook("chat")


def test_the_command_does_too(opscore: Any) -> None:
    assert opscore("webhooks").stdout == "There are no webhooks.\n"
    missing = opscore("webhook", "create", "chat")
    assert (missing.returncode, "--url" in missing.stderr) == (2, True)
    made = opscore("webhook", "create", "chat", "--url", URL, "--event", "run.*")
    assert made.stdout.startswith("whsec_")
    inside = opscore("webhook", "create", "inside", "--url", "http://10.0.0.1/")
    assert inside.returncode == 2
    assert "not public" in inside.stderr
    listed = opscore("webhooks").stdout
    assert all(word in listed for word in ("chat", URL, "run.*"))
    sent = json.loads(opscore("webhook", "test", "chat", "--json").stdout)
    assert "webhook.test" in opscore("webhooks", "chat").stdout
    again = opscore("redeliver", "chat", str(sent["id"]))
    assert again.stdout == "webhook.test is sent again\n"
    assert opscore("webhook", "disable", "chat").stdout == "chat is disabled\n"
    assert opscore("webhook", "test", "chat").returncode == 3
    assert opscore("webhook", "enable", "chat").stdout == "chat is enabled\n"
    assert opscore("webhook", "rotate", "chat").stdout.startswith("whsec_")
    assert opscore("webhook", "delete", "chat").stdout == "chat is deleted\n"
