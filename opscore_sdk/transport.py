"""One way to ask the platform: key, retries, errors."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any
from uuid import uuid4

import httpx

from opscore_sdk.errors import UnreachableError, from_answer

#: Tries of a request that may be sent twice; with the waits below, about three seconds.
TRIES = 4
_FIRST_WAIT_S = 0.2
_MAX_WAIT_S = 3.2
#: A longer `Retry-After` is not waited for by somebody without patience.
_IMPATIENT_S = 2.0
_GATEWAY = frozenset({502, 503, 504})


class Transport:
    """An HTTP connection to one platform. Not for use by several threads at once."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout_s: float,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.address = root_of(base_url)
        self._http = httpx.Client(
            base_url=f"{self.address}/api/v1",
            headers={"Authorization": f"Bearer {api_key}", "Accept": "application/json"},
            timeout=timeout_s,
            transport=transport,
        )

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        text: str | None = None,
        media_type: str = "application/json",
        query: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        repeatable: bool = True,
        timeout_s: float | None = None,
        patience_s: float = 0.0,
    ) -> Any:
        """Send one request and return its JSON, None where there is none.

        A repeatable request is sent again when the connection fails or the answer is 502, 503 or
        504, after the pause that `Retry-After` asks for: four times, and for `patience_s` seconds
        at least. A POST gets an `Idempotency-Key` for that, so it is done once. Raises ApiError
        and UnreachableError.
        """
        headers = {}
        if method == "POST" and repeatable:
            headers["Idempotency-Key"] = idempotency_key or str(uuid4())
        request = self._http.build_request(
            method,
            path,
            params={name: value for name, value in (query or {}).items() if value is not None},
            json=body if text is None and body is not None else None,
            content=text.encode() if text is not None else None,
            headers=headers if text is None else {**headers, "Content-Type": media_type},
            timeout=httpx.USE_CLIENT_DEFAULT if timeout_s is None else timeout_s,
        )
        return _read(self._send(request, TRIES if repeatable else 1, patience_s))

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def __enter__(self) -> Transport:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, request: httpx.Request, tries: int, patience_s: float) -> httpx.Response:
        give_up_at = time.monotonic() + patience_s
        for number in itertools.count(1):
            asked_s, left_s = 0.0, give_up_at - time.monotonic()
            last = number >= tries and left_s <= 0
            try:
                response = self._http.send(request)
            except (httpx.TransportError, httpx.InvalidURL) as error:
                if last:
                    raise UnreachableError(self._why(error)) from error
            else:
                if last or response.status_code not in _GATEWAY:
                    return response
                asked_s = min(_retry_after_s(response), max(left_s, _IMPATIENT_S))
            time.sleep(max(asked_s, _wait_s(number)))
        raise AssertionError("unreachable")

    def _why(self, error: Exception) -> str:
        if isinstance(error, httpx.ConnectError):
            return f"Nobody answers at {self.address}: is the platform running there?"
        if isinstance(error, httpx.TimeoutException):
            return f"{self.address} did not answer in time."
        return f"The connection to {self.address} failed: {str(error) or type(error).__name__}."


def root_of(base_url: str) -> str:
    """Return the address without `/v1` or `/api/v1`, which some people add.

    Raises UnreachableError when it is no http:// or https:// address.
    """
    address = base_url.strip().rstrip("/")
    for ending in ("/api/v1", "/v1"):
        address = address.removesuffix(ending)
    if not address.startswith(("http://", "https://")):
        raise UnreachableError(
            f"{base_url!r} is no address: it must start with http:// or https://."
        )
    return address


def _wait_s(number: int) -> float:
    wait_s: float = min(_FIRST_WAIT_S * 2 ** min(number - 1, 16), _MAX_WAIT_S)
    return wait_s * (0.5 + random.random())  # noqa: S311 - jitter, no secret


def _retry_after_s(response: httpx.Response) -> float:
    """Return the pause that the answer asks for; 0 when it asks for none, or for a date."""
    asked = response.headers.get("Retry-After", "")
    return float(asked) if asked.isdecimal() else 0.0


def _read(response: httpx.Response) -> Any:
    try:
        body = response.json() if response.content else None
    except ValueError:
        body = None
    if not response.is_success:
        raise from_answer(response.status_code, body)
    return body
