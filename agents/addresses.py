"""Where Ops-Core may send to: addresses are checked, and what was checked is dialled."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import SplitResult, urlsplit

from opscore.errors import InvalidError, Problem

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
#: Asks for the addresses of a host name: (host, port) -> texts. Raises OSError.
Resolver = Callable[[str, int], Iterable[str]]

#: IPv6 addresses that carry an IPv4 one in their last 32 bits (RFC 6052).
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
#: All of IPv6 that is handed out to be reached from everywhere.
_UNICAST = ipaddress.IPv6Network("2000::/3")
_MAX_URL = 2000


class RefusedAddressError(InvalidError):
    """Ops-Core sends nothing to this address."""


def parse_url(text: str, field: str = "url") -> SplitResult:
    """Return the parts of a URL. Raises InvalidError for what nobody could send to."""
    why = ""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise _invalid(f"is no URL: {error}", field) from None
    if len(text) > _MAX_URL or not text.isascii() or not text.isprintable() or " " in text:
        why = f"at most {_MAX_URL} printable ASCII characters without spaces are expected"
    elif parts.scheme not in {"http", "https"} or not parts.hostname:
        why = "http://host/… or https://host/… is expected"
    elif parts.username is not None or parts.password is not None:
        why = "no name and password, please: requests are signed"
    elif parts.fragment:
        why = "a fragment (#…) is never sent"
    if why:
        raise _invalid(why, field)
    return parts


def networks(text: str) -> list[Network]:
    """Read a comma-separated list of networks. Raises InvalidError."""
    try:
        return [ipaddress.ip_network(word.strip()) for word in text.split(",") if word.strip()]
    except ValueError as error:
        raise _invalid(str(error), "OPSCORE_PUSH_NETWORKS") from None


def lookup(host: str, port: int) -> list[str]:
    """Ask the system for a host's addresses. Raises OSError."""
    # Also what inet_aton would read: 127.1, 2130706433, 0x7f.1.
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def chosen(
    parts: SplitResult, allowed: Sequence[Network], resolver: Resolver | None = None
) -> list[str]:
    """Return the addresses to connect to, best first. Raises RefusedAddressError, OSError.

    One private address among several refuses the name as a whole: who controls the answer of
    the DNS would only have to be asked often enough.
    """
    host, port = str(parts.hostname), port_of(parts)
    found = list((resolver or lookup)(host, port))
    if not found:
        raise OSError(f"{host} has no address")
    for text in found:
        if not is_allowed(ipaddress.ip_address(text.partition("%")[0]), allowed):
            raise RefusedAddressError(
                f"Ops-Core sends nothing to {host} ({text}): the address is not public. An "
                "operator may allow networks with OPSCORE_PUSH_NETWORKS."
            )
    return found


def check(parts: SplitResult, allowed: Sequence[Network], field: str = "url") -> None:
    """Raise InvalidError where a URL leads to an address that nothing is sent to.

    One that has no address yet passes: it is checked again before each request.
    """
    try:
        chosen(parts, allowed)
    except RefusedAddressError as error:
        raise _invalid(str(error), field) from None
    except OSError:
        return


def is_allowed(address: Address, allowed: Sequence[Network]) -> bool:
    """Tell whether an address is public, or in a network that the operator allows."""
    inner = _inner(address)
    if any(_within(candidate, allowed) for candidate in (address, inner)):
        return True
    if inner.is_multicast or not inner.is_global:
        return False
    return inner.version == 4 or inner in _UNICAST


def port_of(parts: SplitResult) -> int:
    """Return the port, also where the URL leaves it out."""
    return parts.port or (443 if parts.scheme == "https" else 80)


def _within(address: Address, allowed: Sequence[Network]) -> bool:
    return any(address.version == net.version and address in net for net in allowed)


def _inner(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, else the address itself."""
    if address.version == 4:
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _invalid(why: str, field: str) -> InvalidError:
    return InvalidError("This address cannot be sent to.", [Problem(why, field)])
