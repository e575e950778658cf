"""One task, sent to an agent of kind http: the request, and what its answer means."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from agents import addresses, dialling
from agents.dialling import Pinned, Request, said, start
from agents.endpoints import Target, sign
from agents.lookups import Lookups
from opscore import attempt_tokens
from opscore.config import load_config
from opscore.errors import OpsCoreError
from tasks.held import Claimed

#: How long a connection, and then the answer to a probe, may take.
CONNECT_S = dialling.CONNECT_S
#: What is wrong with an agent that took a probe and did not answer it.
SILENT = f"no answer within {CONNECT_S:g} s"
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

    @property
    def blames_agent(self) -> bool:
        """Tell whether it says that the agent is not well, whatever the task was.

        It was not reached, the connection broke, it did not answer in time, or answered 5xx.
        """
        kind = self.error.get("type")
        is_broken = kind == "http_status" and self.error.get("retryable") is True
        return not self.reached or (self.kind == "failed" and (kind == "timeout" or is_broken))


#: One for all agents: what many of them are asked for at once is asked once.
_lookups = Lookups()


class Dialler:
    """Sends requests to one agent; connections are kept, each to an address that was checked."""

    def __init__(self, target: Target, resolver: addresses.Resolver | None = None) -> None:
        self._lookups = Lookups(resolver) if resolver else _lookups
        self._client = dialling.client(target.concurrency + 1)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def push(self, target: Target, task: Claimed) -> Answer:
        """Send one task and wait for the answer; never raises but when it is cancelled."""
        body = _body(target, task)
        try:
            # httpx counts silence, not the whole: a trickle would never end. Finding a connection
            # is no time of the agent's; httpx bounds that.
            async with asyncio.timeout(None) as clock:
                started = partial(start, clock, target.timeout_s)
                return await self._ask(target.url, body, _headers(target, task, body), started)
        except TimeoutError:
            message = f"no answer within {target.timeout_s:g} s"
            return Answer("failed", error={"type": "timeout", "message": message})

    async def probe(self, target: Target) -> str:
        """Ask whether the agent is well; return what is wrong, '' if nothing is.

        SILENT: it can be connected to, but does not answer.
        """
        try:
            async with asyncio.timeout(None) as clock:
                parts = addresses.parse_url(target.health_url)
                request = Request(
                    "GET", parts, b"", {}, partial(start, clock, CONNECT_S), CONNECT_S
                )
                async with Pinned(self._client, self._lookups, request) as response:
                    well = response.is_success if target.health_path else response.status_code < 500
                    return "" if well else f"HTTP {response.status_code}"
        except TimeoutError:
            return SILENT
        except (httpx.HTTPError, OpsCoreError, OSError, ValueError) as error:
            return said(error)

    async def _ask(
        self, url: str, body: bytes, headers: Mapping[str, str], started: Callable[[], None]
    ) -> Answer:
        try:
            request = Request("POST", addresses.parse_url(url), body, headers, started, CONNECT_S)
            async with Pinned(self._client, self._lookups, request) as response:
                return await _read(response)
        except (addresses.RefusedAddressError, OSError) as error:
            return _unsent(error)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return _unsent(error)
        except (httpx.HTTPError, OpsCoreError, ValueError) as error:
            return Answer("lost", reason=f"the connection broke: {said(error)}", reached=False)


def _unsent(error: Exception) -> Answer:
    return Answer("unsent", reason=said(error), hold_s=1.0, reached=False)


async def _read(response: httpx.Response) -> Answer:
    status, retry_after = response.status_code, response.headers.get("Retry-After", "")
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding != "identity":
        # A few bytes would unpack to as much memory as their sender likes.
        if status == 200:
            return _final(
                "invalid_answer", f"the answer is packed ({encoding[:50]}): send it plain"
            )
        return judged(status, b"", retry_after)
    limit = load_config().max_body_bytes
    raw = bytearray()
    async for chunk in response.aiter_raw():
        raw += chunk
        if len(raw) > limit:
            message = f"the answer has more than {limit} bytes (OPSCORE_MAX_BODY_BYTES)"
            return _final("result_too_large", message)
    return judged(status, bytes(raw), retry_after)


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
    return {
        "Content-Type": "application/json",
        "User-Agent": "ops-core",
        "Idempotency-Key": str(task.as_dict()["idempotency_key"]),
        "Opscore-Attempt": attempt,
        "Opscore-Timestamp": str(timestamp),
        "Opscore-Signature": sign(target.secret, timestamp, body),
        "traceparent": task.traceparent,
    }


def least_loaded(running: Mapping[Any, int], targets: Sequence[Target]) -> Target | None:
    """Return the target with the smallest share of its slots taken; None when none has a free one.

    Of equals the first.
    """
    free = [t for t in targets if running.get(t.session_id, 0) < t.concurrency]
    return min(free, key=lambda t: running.get(t.session_id, 0) / t.concurrency, default=None)
