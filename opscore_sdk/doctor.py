"""`opscore doctor`: what a support person would ask for, of this client and of the platform.

It works without a platform too, and then says what it can. What the platform says of itself is
`GET /diagnostics`; here is only what has to be seen from outside.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import opscore_sdk
from opscore_sdk import report
from opscore_sdk.client import Client
from opscore_sdk.errors import (
    AuthenticationError,
    ForbiddenError,
    NotFoundError,
    OpsCoreError,
    ServerError,
)
from opscore_sdk.outside import OutsideError, Seen, look
from opscore_sdk.place import ENV_FILE, Place, find_place
from opscore_sdk.statuses import DONE, FAILED

_CLOCKS_S = 5.0
_EXPIRES_SOON = timedelta(days=14)
_NOT_PRIVATE = "anybody between here and there can read the key: use https://"


@dataclass(frozen=True)
class Finding:
    """What was found about one part."""

    part: str
    status: str
    """ok, warn or fail."""
    message: str
    advice: str = ""


def doctor(options: argparse.Namespace) -> int:
    """Check everything; FAILED where something does not work."""
    shown: list[Finding] = []
    for finding in _findings():
        shown.append(finding)
        if not options.json:
            report.finding(finding.status, finding.part, finding.message, finding.advice)
    counts = {word: sum(one.status == word for one in shown) for word in ("fail", "warn")}
    said = f"{counts['fail']} of {len(shown)} checks failed, {counts['warn']} warn."
    if not any(counts.values()):
        said = f"All {len(shown)} checks are well."
    rows = [asdict(one) for one in shown]
    report.done(said, {"ok": not counts["fail"], "findings": rows}, as_json=options.json)
    return FAILED if counts["fail"] else DONE


def _findings() -> Iterator[Finding]:
    yield _client()
    try:
        place = find_place()
    except OpsCoreError as error:
        yield Finding("address", "fail", str(error), "without it nothing else can be checked")
        return
    yield Finding("address", "ok", f"{place.url} (from {_source('OPSCORE_API_URL')})")
    try:
        seen = look(place.url)
    except OutsideError as error:
        yield Finding("server", "fail", str(error), error.advice)
        return
    yield from _from_outside(place, seen)
    if not seen.is_ours:
        return
    with Client(place.url, place.api_key, timeout_s=20) as client:
        yield from _from_inside(client, place)


def _client() -> Finding:
    versions = f"opscore-sdk {opscore_sdk.__version__}, Python {platform.python_version()}"
    return Finding("client", "ok", f"{versions} on {platform.system()}: {sys.executable}")


def _source(name: str) -> str:
    return f"the variable {name}" if os.environ.get(name) else str(ENV_FILE)


def _from_outside(place: Place, seen: Seen) -> Iterator[Finding]:
    if not seen.is_ours:
        advice = "correct OPSCORE_API_URL: something else answers there"
        message = f"answers with status {seen.status}, but is no Ops-Core"
        yield Finding("server", "fail", message, advice)
        return
    yield Finding("server", "ok", f"answers in {seen.ms:.0f} ms")
    yield _private(place, seen)
    if seen.apart_s is not None:
        said = f"this machine and the server differ by {abs(seen.apart_s):.0f} s"
        far = abs(seen.apart_s) > _CLOCKS_S
        advice = "synchronise this machine's clock (NTP)"
        yield Finding("clock", "warn" if far else "ok", said, advice if far else "")
    yield _versions(seen.version)
    for name, status in seen.components.items():
        if status != "ok":
            advice = f"start it, or correct OPSCORE_{name.upper()}_URL of the server"
            yield Finding(f"server's {name}", "fail", f"the server says: {status}", advice)


def _private(place: Place, seen: Seen) -> Finding:
    if place.url.startswith("https://"):
        until = seen.certificate_until
        if until is None:
            return Finding("TLS", "ok", "encrypted")
        left = until - datetime.now(timezone.utc)
        said = f"encrypted; the certificate is valid until {until:%Y-%m-%d}"
        if left < _EXPIRES_SOON:
            return Finding("TLS", "warn", said, "renew the certificate")
        return Finding("TLS", "ok", said)
    if seen.is_here:
        return Finding("TLS", "ok", "not needed: the server is on this machine")
    return Finding("TLS", "warn", "not encrypted", _NOT_PRIVATE)


def _versions(server: str) -> Finding:
    own = opscore_sdk.__version__
    said = f"client {own}, server {server}"
    if own.split(".")[:2] == server.split(".")[:2]:
        return Finding("versions", "ok", said)
    return Finding("versions", "warn", said, "install the opscore-sdk of the server's version")


def _from_inside(client: Client, place: Place) -> Iterator[Finding]:
    try:
        client.ready()
        yield Finding("ready", "ok", "the server takes requests")
    except OpsCoreError as error:
        yield Finding("ready", "fail", str(error), "look at database and broker of the server")
    try:
        answer = client.diagnostics()
    except OpsCoreError as error:
        yield _refused(error, place)
        return
    yield from _key(answer["key"])
    for row in answer["findings"]:
        yield Finding(row["part"], row["status"], row["message"], row.get("advice", ""))


def _refused(error: OpsCoreError, place: Place) -> Finding:
    """Say what it means that the platform does not tell how it is."""
    if isinstance(error, AuthenticationError):
        advice = f"set OPSCORE_API_KEY to one that works (now from {_source('OPSCORE_API_KEY')})"
        return Finding("key", "fail", f"{_shown(place.api_key)}: {error}", advice)
    if isinstance(error, ForbiddenError):
        message = f"{_shown(place.api_key)} is valid. {error}"
        advice = "to check the rest of the platform, run this with the key of an administrator"
        return Finding("key", "warn", message, advice)
    if isinstance(error, NotFoundError):
        message = "this server is older than its client and cannot say how it is"
        return Finding("platform", "warn", message, "update it")
    advice = (
        "look into the log of the web server" if isinstance(error, ServerError) else "try again"
    )
    return Finding("platform", "fail", str(error), advice)


def _shown(key: str) -> str:
    """Return what may be said of a key."""
    return "_".join(key.split("_")[:2]) + "_…" if key.count("_") > 1 else "the key"


def _key(key: dict[str, Any]) -> Iterator[Finding]:
    said = f"{key['name']} ({key['prefix']}…) may: {', '.join(key['scopes'])}"
    if not key["expires_at"]:
        yield Finding("key", "ok", f"{said}; it never expires")
        return
    until = datetime.fromisoformat(key["expires_at"].replace("Z", "+00:00"))
    said = f"{said}; it expires {until:%Y-%m-%d %H:%M} UTC"
    if until - datetime.now(timezone.utc) < _EXPIRES_SOON:
        advice = f"opscore key rotate {key['prefix']}"
        yield Finding("key", "warn", said, advice)
    else:
        yield Finding("key", "ok", said)
