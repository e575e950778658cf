"""How requests are signed: the headers of the Standard Webhooks specification. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets as random
from collections.abc import Sequence

PREFIX = "whsec_"


def new_secret() -> str:
    """Return a new secret: 256 random bits, as libraries of the specification read it."""
    return PREFIX + base64.b64encode(random.token_bytes(32)).decode()


def headers(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the three headers; every secret signs, so that a receiver may know only one."""
    message = f"{message_id}.{timestamp}.".encode() + body
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(_signature(secret, message) for secret in secrets),
    }


def _signature(secret: str, message: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    return "v1," + base64.b64encode(hmac.new(key, message, hashlib.sha256).digest()).decode()
