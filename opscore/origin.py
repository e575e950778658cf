"""Where a request comes from, for whoever records it: address, request id, what it changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from django.http import HttpRequest

from opscore.config import listed, load_config


@dataclass
class Origin:
    """One request, or one command on the machine."""

    address: str | None = None
    request_id: str = ""
    changes: list[dict[str, Any]] = field(default_factory=list)
    """What it changed, as far as whoever changed it has said so; shared by all its threads."""
    projects: set[int] = field(default_factory=set)
    """Whose things these are, for people: keys have one project."""


_current: ContextVar[Origin | None] = ContextVar("opscore_origin", default=None)


@contextmanager
def begun(origin: Origin) -> Iterator[Origin]:
    """Make this the current origin while the block lasts."""
    token = _current.set(origin)
    try:
        yield origin
    finally:
        _current.reset(token)


def current() -> Origin:
    """Return the current origin; outside of requests one that nobody looks at."""
    return _current.get() or Origin()


def address_of(request: HttpRequest) -> str | None:
    """Return the client's address: behind proxies that are trusted, what they say it is."""
    hops = [word.strip() for word in request.headers.get("X-Forwarded-For", "").split(",")]
    address = _sane(request.META.get("REMOTE_ADDR", ""))
    # From the nearest hop outwards: what lies beyond one that is not trusted may be made up.
    while hops and is_trusted(address):
        further = _sane(hops.pop())
        if further is None:
            break
        address = further
    return address


def source_of(address: str | None) -> str:
    """Return what counts as one source: an IPv4 address, or the /64 that one customer gets."""
    known = _sane(address or "")
    if known is None:
        return ""
    return known if "." in known else str(ip_network(f"{known}/64", strict=False))


def is_trusted(address: str | None) -> bool:
    """Tell whether the address is one of our own proxies."""
    known = _sane(address or "")
    return known is not None and any(ip_address(known) in network for network in _proxies())


def _sane(text: str) -> str | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            # Means something on one host only, may be of any length, and is no inet for PostgreSQL.
            return None
        address = address.ipv4_mapped or address
    return str(address)


@cache
def _proxies() -> tuple[Any, ...]:
    return tuple(ip_network(text) for text in listed(load_config().trusted_proxies))
