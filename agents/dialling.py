"""One HTTP request to an address of somebody else: checked, pinned, never redirected."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import SplitResult

import httpx

from agents import addresses
from agents.lookups import Lookups
from opscore.config import load_config

#: How long a connection may take.
CONNECT_S = 5.0


def client(connections: int | None = None) -> httpx.AsyncClient:
    """Return a client for one receiver; two must not share one.

    Connections are kept by address, and with another name on the same address the certificate
    would be that of the first one.
    """
    # No proxy of the environment: it would dial what nobody has checked.
    limits = httpx.Limits(max_connections=connections)
    return httpx.AsyncClient(verify=_tls(), limits=limits, trust_env=False, follow_redirects=False)


@cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def start(clock: asyncio.Timeout, seconds: float) -> None:
    """Have the time of a clock begin now."""
    clock.reschedule(asyncio.get_running_loop().time() + seconds)


def said(error: Exception) -> str:
    """Return the words of an error, or its name where it has none."""
    return str(error) or type(error).__name__


@dataclass(frozen=True)
class Request:
    """What goes out."""

    method: str
    parts: SplitResult
    body: bytes
    headers: Mapping[str, str]
    started: Callable[[], None] = lambda: None
    """Called when there is a connection and the request goes out."""
    connect_s: float = CONNECT_S


class Pinned:
    """A request to the address that was checked: the name is asked for once, and then not again.

    A context manager that gives the response, unread. Raises RefusedAddressError, OSError (no
    address) and what httpx raises.
    """

    def __init__(self, client: httpx.AsyncClient, lookups: Lookups, request: Request) -> None:
        self._client = client
        self._lookups = lookups
        self._request = request
        self._response: httpx.Response | None = None

    async def __aenter__(self) -> httpx.Response:
        found = await self._addresses()
        for address in found[:-1]:
            # `localhost` has two, and servers often listen on one of them.
            with contextlib.suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return await self._send(address)
        return await self._send(found[-1])

    async def _addresses(self) -> list[str]:
        parts = self._request.parts
        found = await self._lookups.find(str(parts.hostname), addresses.port_of(parts))
        allowed = addresses.networks(load_config().push_networks)
        return addresses.chosen(parts, allowed, lambda *_: found)

    async def _send(self, address: str) -> httpx.Response:
        host = f"[{address}]" if ":" in address else address
        asked, parts = self._request, self._request.parts
        request = self._client.build_request(
            asked.method,
            parts._replace(netloc=f"{host}:{addresses.port_of(parts)}").geturl(),
            content=asked.body,
            headers={**asked.headers, "Host": parts.netloc, "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(None, connect=asked.connect_s, pool=asked.connect_s),
            # The certificate must be the name's, not the address's.
            extensions={"sni_hostname": str(parts.hostname), "trace": self._trace},
        )
        self._response = await self._client.send(request, stream=True)
        return self._response

    async def _trace(self, event: str, _: Mapping[str, Any]) -> None:
        if event.endswith(".send_request_headers.started"):
            self._request.started()

    async def __aexit__(self, *_: object) -> None:
        if self._response is not None:
            await self._response.aclose()
