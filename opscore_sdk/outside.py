"""A platform as it is seen from outside, before anybody has a key for it."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any

import httpx

_TIMEOUT_S = 10.0


class OutsideError(Exception):
    """The server cannot be reached; `advice` is what to do."""

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(message)
        self.advice = advice


@dataclass(frozen=True)
class Seen:
    """What `/health` of a server showed."""

    status: int
    ms: float
    version: str = ""
    components: Mapping[str, str] = field(default_factory=dict)
    """Name -> ok or down."""
    apart_s: float | None = None
    """How much later the server's clock is; known to about a second."""
    certificate_until: datetime | None = None
    is_here: bool = False
    """Whether the server is on this machine."""

    @property
    def is_ours(self) -> bool:
        """Whether it is an Ops-Core that answered."""
        return bool(self.version)


def look(url: str) -> Seen:
    """Ask a server how it is; raises OutsideError."""
    place = httpx.URL(url)
    started, began = time.monotonic(), datetime.now(timezone.utc)
    try:
        answer = httpx.get(f"{url}/api/v1/health", timeout=_TIMEOUT_S)
    except httpx.HTTPError as error:
        raise _unreachable(place, error) from None
    ms = (time.monotonic() - started) * 1000
    health = _health(answer)
    parts = health.get("components")
    return Seen(
        status=answer.status_code,
        ms=ms,
        version=str(health.get("version", "")) if isinstance(parts, dict) else "",
        components={name: str(one.get("status")) for name, one in (parts or {}).items()},
        apart_s=_apart_s(answer, began, ms),
        certificate_until=_certificate_until(place),
        is_here=_is_loopback(place.host),
    )


def _health(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _apart_s(answer: httpx.Response, began: datetime, ms: float) -> float | None:
    try:
        server = parsedate_to_datetime(answer.headers["Date"])
    except (KeyError, TypeError, ValueError):
        return None
    apart = (server - began).total_seconds()
    # The header has whole seconds, and was written while the answer was on its way.
    return 0.0 if -1.0 <= apart <= ms / 1000 else apart


def _unreachable(place: httpx.URL, error: Exception) -> OutsideError:
    where = f"{place.host}:{place.port or (443 if place.scheme == 'https' else 80)}"
    said = str(error)
    if "CERTIFICATE" in said.upper():
        advice = "have the server send a certificate that this machine trusts, or set SSL_CERT_FILE"
        return OutsideError(f"The certificate of {where} is not trusted: {said}", advice)
    if "WRONG_VERSION_NUMBER" in said:
        advice = "correct OPSCORE_API_URL: http://, or the port of the proxy that encrypts"
        return OutsideError(f"{where} does not speak TLS.", advice)
    if isinstance(error, httpx.TimeoutException):
        message = f"{where} did not answer within {_TIMEOUT_S:g} s."
        return OutsideError(
            message, "look for a firewall between here and there, and at the server"
        )
    if _unknown(place.host):
        return OutsideError(f"No address is known for {place.host}.", "correct OPSCORE_API_URL")
    if isinstance(error, httpx.ConnectError):
        advice = "start it (`make up`), or correct OPSCORE_API_URL"
        return OutsideError(f"Nobody answers at {where}: {said}", advice)
    message = f"The connection to {where} failed: {said or type(error).__name__}"
    return OutsideError(message, "is it a server of HTTP? Is it https:// and not http://?")


def _unknown(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return True
    return False


def _certificate_until(place: httpx.URL) -> datetime | None:
    if place.scheme != "https":
        return None
    try:
        with (
            socket.create_connection((place.host, place.port or 443), _TIMEOUT_S) as plain,
            ssl.create_default_context().wrap_socket(plain, server_hostname=place.host) as line,
        ):
            known = line.getpeercert() or {}
            seconds = ssl.cert_time_to_seconds(str(known["notAfter"]))
    except (OSError, KeyError, ValueError):
        return None
    return datetime.fromtimestamp(seconds, timezone.utc)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
