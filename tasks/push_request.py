"""One task, sent to an agent of kind http: the request, and what its answer means."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import SplitResult

import httpx

from agents import addresses
from agents.endpoints import Target, sign
from opscore import attempt_tokens
from opscore.config import load_config
from opscore.errors import OpsCoreError
from tasks.held import Claimed

#: How long a connection, and the answer to a probe, may take.
CONNECT_S = 5.0
#: The longest that an agent may ask to be left alone.
MAX_HOLD_S = 60.0
#: Answers above this many bytes are no error pages worth reading.
_SHOWN = 300
_AGAIN = frozenset({408, 425})
_BUSY = frozenset({429, 503})
#: What an error object must have.
_ERROR = frozenset({"type", "message"})


@dataclass(frozen=True)
class Answer:
    """What became of a request."""

    kind: str
    """completed, failed: report it; accepted: a callback follows; unsent: the agent never had it;
    lost: nobody knows."""
    result: Any = None
    error: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    hold_s: float = 0.0
    """How long the agent should be left alone."""
    reached: bool = True
    """Whether the agent answered at all."""


@cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()


class Dialler:
    """Sends requests to one agent; connections are kept, each to an address that was checked."""

    def __init__(self, target: Target, resolver: addresses.Resolver | None = None) -> None:
        self._resolver = resolver
        limits = httpx.Limits(max_connections=target.concurrency + 1)
        # No proxy of the environment: it would dial what nobody has checked.
        self._client = httpx.AsyncClient(
            verify=_tls(), limits=limits, trust_env=False, follow_redirects=False
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def push(self, target: Target, task: Claimed) -> Answer:
        """Send one task and wait for the answer; never raises but when it is cancelled."""
        body = _body(target, task)
        try:
            # httpx counts silence, not the whole: a trickle would never end.
            async with asyncio.timeout(target.timeout_s):
                return await self._ask("POST", target.url, body, _headers(target, task, body))
        except TimeoutError:
            message = f"no answer within {target.timeout_s:g} s"
            return Answer("failed", error={"type": "timeout", "message": message})

    async def probe(self, target: Target) -> str:
        """Ask whether the agent is well; return what is wrong, '' if nothing is."""
        try:
            async with asyncio.timeout(CONNECT_S):
                parts = addresses.parse_url(target.health_url)
                async with self._stream("GET", parts, b"", {}) as response:
                    well = response.is_success if target.health_path else response.status_code < 500
                    return "" if well else f"HTTP {response.status_code}"
        except TimeoutError:
            return f"no answer within {CONNECT_S:g} s"
        except (httpx.HTTPError, OpsCoreError, OSError, ValueError) as error:
            return _said(error)

    async def _ask(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        try:
            parts = addresses.parse_url(url)
            async with self._stream(method, parts, body, headers) as response:
                return await _read(response)
        except (addresses.RefusedAddressError, OSError) as error:
            return _unsent(error)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return _unsent(error)
        except (httpx.HTTPError, OpsCoreError, ValueError) as error:
            return Answer("lost", reason=f"the connection broke: {_said(error)}", reached=False)

    def _stream(
        self, method: str, parts: SplitResult, body: bytes, headers: Mapping[str, str]
    ) -> _Pinned:
        return _Pinned(self._client, self._resolver, method, parts, body, headers)


class _Pinned:
    """A request to the address that was checked: the name is asked for once, and then not again."""

    def __init__(  # noqa: PLR0917 - made in one place
        self,
        client: httpx.AsyncClient,
        resolver: addresses.Resolver | None,
        method: str,
        parts: SplitResult,
        body: bytes,
        headers: Mapping[str, str],
    ) -> None:
        self._client = client
        self._resolver = resolver
        self._method, self._parts, self._body, self._headers = method, parts, body, headers
        self._response: httpx.Response | None = None

    async def __aenter__(self) -> httpx.Response:
        allowed = addresses.networks(load_config().push_networks)
        found = await asyncio.to_thread(addresses.chosen, self._parts, allowed, self._resolver)
        for address in found[:-1]:
            # `localhost` has two, and servers often listen on one of them.
            with contextlib.suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return await self._send(address)
        return await self._send(found[-1])

    async def _send(self, address: str) -> httpx.Response:
        host = f"[{address}]" if ":" in address else address
        parts = self._parts
        request = self._client.build_request(
            self._method,
            parts._replace(netloc=f"{host}:{addresses.port_of(parts)}").geturl(),
            content=self._body,
            headers={**self._headers, "Host": parts.netloc, "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(None, connect=CONNECT_S),
            # The certificate must be the name's, not the address's.
            extensions={"sni_hostname": str(parts.hostname)},
        )
        self._response = await self._client.send(request, stream=True)
        return self._response

    async def __aexit__(self, *_: object) -> None:
        if self._response is not None:
            await self._response.aclose()


def _unsent(error: Exception) -> Answer:
    return Answer("unsent", reason=_said(error), hold_s=1.0, reached=False)


async def _read(response: httpx.Response) -> Answer:
    limit = load_config().max_result_bytes
    raw = bytearray()
    async for chunk in response.aiter_bytes():
        raw += chunk
        if len(raw) > limit:
            message = f"the answer has more than {limit} bytes"
            return _final("result_too_large", message)
    return judged(response.status_code, bytes(raw), response.headers.get("Retry-After", ""))


def judged(status: int, raw: bytes, retry_after: str = "") -> Answer:
    """Return what an answer means."""
    if status == 200:
        return _report(raw)
    if status == 202:
        return Answer("accepted")
    if status in _BUSY:
        hold_s = float(retry_after) if retry_after.isdigit() and len(retry_after) < 9 else 1.0
        wait_s = max(1.0, min(hold_s, MAX_HOLD_S))
        return Answer("unsent", reason=f"HTTP {status}: it is busy", hold_s=wait_s)
    if 300 <= status < 400:
        return _final("redirect", f"HTTP {status}: redirects are not followed")
    shown = raw[:_SHOWN].decode(errors="replace").replace("\0", "")
    error = {"type": "http_status", "message": f"HTTP {status}: {shown}"}
    return Answer("failed", error={**error, "retryable": status >= 500 or status in _AGAIN})


def _report(raw: bytes) -> Answer:
    try:
        said = json.loads(raw)
    except (ValueError, RecursionError) as broken:
        return _final("invalid_answer", f"the answer is no JSON: {broken}")
    if isinstance(said, dict):
        if said.get("status") == "completed":
            return Answer("completed", result=said.get("result"))
        why = said.get("error")
        if said.get("status") == "failed" and isinstance(why, dict) and why.keys() >= _ERROR:
            return Answer("failed", error=why)
    expected = '{"status": "completed", "result": …} or {"status": "failed", "error": {…}}'
    return _final("invalid_answer", f"expected {expected}")


def _final(kind: str, message: str) -> Answer:
    return Answer("failed", error={"type": kind, "message": message, "retryable": False})


def _body(target: Target, task: Claimed) -> bytes:
    api = load_config().public_url.rstrip("/")
    callback = {
        "url": f"{api}/api/v1/tasks/{task.id}/report" if api else None,
        "key": attempt_tokens.issue(task.project_id, task.id, task.fence),
    }
    sent = {**task.as_dict(), "agent": target.name, "callback": callback}
    return json.dumps(sent, ensure_ascii=False, separators=(",", ":")).encode()


def _headers(target: Target, task: Claimed, body: bytes) -> dict[str, str]:
    timestamp = int(time.time())
    attempt = f"{task.id}/{task.fence}"
    # One trace for a run, one span for an attempt.
    span = hashlib.sha256(attempt.encode()).hexdigest()[:16]
    return {
        "Content-Type": "application/json",
        "User-Agent": "ops-core",
        "Idempotency-Key": str(task.as_dict()["idempotency_key"]),
        "Opscore-Attempt": attempt,
        "Opscore-Timestamp": str(timestamp),
        "Opscore-Signature": sign(target.secret, timestamp, body),
        "traceparent": f"00-{task.run_id.hex}-{span}-01",
    }


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def least_loaded(running: Mapping[Any, int], targets: Sequence[Target]) -> Target | None:
    """Return the target with the smallest share of its slots taken; None when none has a free one.

    Of equals the first.
    """
    free = [t for t in targets if running.get(t.session_id, 0) < t.concurrency]
    return min(free, key=lambda t: running.get(t.session_id, 0) / t.concurrency, default=None)
