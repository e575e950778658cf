"""A platform in memory: the executor protocol, tasks and agents of the API, without Django."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from opscore_sdk.client import AsyncClient, Client
from opscore_sdk.testing import (  # noqa: F401 - they register themselves
    agent_routes,
    sharing_routes,
    stream_routes,
    task_routes,
)
from opscore_sdk.testing.engine import Engine
from opscore_sdk.testing.frames import Frames
from opscore_sdk.testing.refusals import Refused
from opscore_sdk.testing.routing import Asked, Reply, State, routed
from opscore_sdk.testing.serving import serving
from opscore_sdk.testing.sharing import Sharing
from opscore_sdk.testing.transports import MemoryTransport

_KEYLESS = {"/health", "/ready"}


@dataclass
class Seen:
    """One request that the platform was asked."""

    at: float
    """Of `time.monotonic`, when it came."""
    method: str
    path: str
    body: Any = None
    status: int = 0
    """0 while it waits."""
    answer: Any = None

    @property
    def was_understood(self) -> bool:
        """Whether it was not refused; then its body is as the API wants it."""
        return self.status < 400


@dataclass
class MemoryPlatform:
    """Ops-Core's API for tests: an agent or a client cannot tell it from the real one.

    Example:
        platform = MemoryPlatform()
        task = platform.client().submit("shout", inputs={"text": "hello"})
        with running(agent, platform):
            assert platform.client().wait(task.run_id).status == "completed"

    It knows agents, sessions, the executor protocol, single tasks (each a run), logs, progress,
    retries, shared context, messages, `?wait=` and streams; anything else answers 501. `serve` gives it an address,
    for programs in other languages. Any number of threads and event loops may use it.
    """

    key: str = "memory"
    session_ttl_s: float = 30.0
    """Seconds of silence after which a session has ended."""
    seen: list[Seen] = field(default_factory=list)
    """What it was asked, oldest first."""
    refused_reports: set[str] = field(default_factory=set)
    """Ids of tasks whose reports are refused, as those of an old attempt are."""

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._skipped_s = 0.0
        self._away_until = 0.0
        self._answers: dict[tuple[str, str, str], tuple[str, Reply]] = {}
        self._listeners: set[Callable[[], None]] = set()
        self.engine = Engine(self.now, self.session_ttl_s)
        self.sharing = Sharing(self.now)

    def now(self) -> float:
        """Return the platform's time, in seconds since 1970."""
        return time.time() + self._skipped_s

    def advance(self, seconds: float) -> None:
        """Let time pass at once: sessions time out, retries become due."""
        with self._lock:
            self._skipped_s += seconds
            self.engine.tick()
        self._announce()

    def go_away(self, seconds: float) -> None:
        """Answer 503 to everything for so long, as a platform does that is restarted."""
        self._away_until = time.monotonic() + seconds

    def client(self) -> Client:
        """Return a blocking client of this platform."""
        return Client("http://memory", self.key, transport=self.transport())

    def async_client(self) -> AsyncClient:
        """Return a client of this platform for an event loop."""
        return AsyncClient("http://memory", self.key, transport=self.transport())

    def transport(self) -> MemoryTransport:
        """Return a transport for an httpx client of either kind."""
        return MemoryTransport(self)

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Answer on a free port of this machine while the block lasts; gives the address."""
        with serving(self) as url:
            yield url

    # What transports use

    def asked(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes
    ) -> Callable[[], Reply | None]:
        """Note a request; what is returned answers it, or says None: ask again a little later."""
        seen = Seen(time.monotonic(), method, urlsplit(url).path.removeprefix("/api/v1"))
        self.seen.append(seen)

        first: list[Reply] = []

        def look() -> Reply | None:
            if not first or first[0].renew is None:
                first[:] = [self._reply(seen, url, headers, content)]
            reply = self._renewed(first[0])
            if time.monotonic() - seen.at < reply.wait_s:
                return None
            seen.status, seen.answer = reply.status, reply.body
            if method != "GET":
                self._announce()
            return reply

        return look

    def _reply(self, seen: Seen, url: str, headers: Mapping[str, str], content: bytes) -> Reply:
        try:
            self._check(seen.path, headers)
            seen.body = _json(content)
            with self._lock:
                self.engine.tick()
                asked = self._asked(url, headers, seen.body)
                return self._once(seen.method, seen.path, headers, content, asked)
        except Refused as no:
            return Reply(no.status, no.body())

    def _renewed(self, reply: Reply) -> Reply:
        if reply.renew is None:
            return reply
        with self._lock:
            self.engine.tick()
            return reply.renew()

    def frames(self, reply: Reply) -> Frames:
        """Return what a reader of a stream is sent."""

        def state() -> State | None:
            if reply.state is None or time.monotonic() < self._away_until:
                return None
            with self._lock:
                self.engine.tick()
                return reply.state()

        return Frames(state)

    def undo(self, reply: Reply) -> None:
        """Take back what a reply gave, because nobody took it."""
        if reply.undo is not None:
            with self._lock:
                reply.undo()
            self._announce()

    @contextmanager
    def listening(self, callback: Callable[[], None]) -> Iterator[None]:
        """Have a function called, from any thread, whenever something changed."""
        self._listeners.add(callback)
        try:
            yield
        finally:
            self._listeners.discard(callback)

    def _announce(self) -> None:
        for callback in list(self._listeners):
            callback()

    def _check(self, path: str, headers: Mapping[str, str]) -> None:
        if time.monotonic() < self._away_until:
            raise Refused(503, "The database does not answer; try again.")
        if path not in _KEYLESS and headers.get("authorization") != f"Bearer {self.key}":
            raise Refused(401, "This API key is not valid: unknown, revoked or expired.")

    def _asked(self, url: str, headers: Mapping[str, str], body: Any) -> Asked:
        query = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
        actor, refused = f"key:{self.key}", self.refused_reports
        return Asked(self.engine, self.sharing, actor, query, headers, body, refused)

    def _once(
        self, method: str, path: str, headers: Mapping[str, str], content: bytes, asked: Asked
    ) -> Reply:
        """Answer, or give the answer that this Idempotency-Key got before."""
        key = headers.get("idempotency-key")
        if method != "POST" or key is None:
            return routed(method, path, asked)
        digest = hashlib.sha256(content).hexdigest()
        known = self._answers.get((method, path, key))
        if known is None:
            reply = routed(method, path, asked)
            self._answers[method, path, key] = digest, reply
            return reply
        if known[0] != digest:
            raise Refused(422, "This Idempotency-Key was used with another body.")
        return known[1]


def _json(content: bytes) -> Any:
    if not content:
        return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"The body is no JSON: {error}") from None
