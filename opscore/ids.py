"""Time-ordered ids (RFC 9562, UUID version 7): index-friendly, made by any process."""

from __future__ import annotations

import os
import time
from uuid import UUID

_RANDOM_BITS = (1 << 74) - 1


def uuid7() -> UUID:
    """Return a new UUIDv7: 48 bits of Unix milliseconds, then 74 random bits."""
    millis = time.time_ns() // 1_000_000
    noise = int.from_bytes(os.urandom(10), "big") & _RANDOM_BITS
    value = (millis & ((1 << 48) - 1)) << 80
    value |= 0x7 << 76 | (noise >> 62) << 64
    value |= 0b10 << 62 | noise & ((1 << 62) - 1)
    return UUID(int=value)


def first_uuid7(moment: float) -> UUID:
    """Return the smallest UUIDv7 of a moment (seconds since 1970): later ids are not below it."""
    millis = max(int(moment * 1000), 0)
    return UUID(int=(millis & ((1 << 48) - 1)) << 80 | 0x7 << 76 | 0b10 << 62)
