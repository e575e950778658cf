"""Addresses of host names, asked for without keeping anybody else waiting."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from agents import addresses

#: The longest that anybody waits for an answer of the DNS.
WAIT_S = 5.0
#: How long an answer is used again: a busy agent is sent many requests a second.
CACHE_S = 1.0
#: Names that may be slow at once before others wait for them.
THREADS = 32
#: Apart from the loop's own pool, which has six threads for everything on a small machine.
_pool = ThreadPoolExecutor(THREADS, thread_name_prefix="dns")

_Question = tuple[str, int]


class Lookups:
    """Asks for addresses: each name once at a time, each answer for CACHE_S."""

    def __init__(self, resolver: addresses.Resolver | None = None) -> None:
        self._resolver = resolver or addresses.lookup
        self._asked: dict[_Question, tuple[float, Future[Iterable[str]]]] = {}

    async def find(self, host: str, port: int) -> list[str]:
        """Return a host's addresses, unchecked. Raises OSError, also when it takes too long."""
        if _is_address(host):
            return [host]
        asked = asyncio.wrap_future(self._ask((host, port)))
        try:
            # The others that wait for the same answer go on.
            return list(await asyncio.wait_for(asyncio.shield(asked), WAIT_S))
        except TimeoutError:
            raise OSError(f"the DNS has no answer for {host} within {WAIT_S:g} s") from None

    def _ask(self, question: _Question) -> Future[Iterable[str]]:
        now = time.monotonic()
        self._asked = {
            key: (at, answer)
            for key, (at, answer) in self._asked.items()
            if not answer.done() or now - at < CACHE_S
        }
        if question not in self._asked:
            self._asked[question] = (now, _pool.submit(self._resolver, *question))
        return self._asked[question][1]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
