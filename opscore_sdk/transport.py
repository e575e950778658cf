"""Two thin ways to hold a talk with the platform: in the caller's thread, or on an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

import httpx

from opscore_sdk.asking import Answer, Ask, Pause, Talk
from opscore_sdk.errors import UnreachableError
from opscore_sdk.place import find_place

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="SyncLine")
A = TypeVar("A", bound="AsyncLine")


class SyncLine:
    """A connection to one platform that blocks the caller; any number of threads may use it."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.address, options = _options(base_url, api_key, timeout_s)
        self._http = httpx.Client(transport=transport, **options)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def __enter__(self: S) -> S:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def hold(self, talk: Talk[T]) -> T:
        """Ask what the talk wants asked and return what it returns."""
        answer: Any = None
        while True:
            try:
                step = talk.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            answer = self._do(step)

    def _do(self, step: Ask | Pause) -> Answer | UnreachableError | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        try:
            return _answer(self._http.send(_request(self._http, step)))
        except (httpx.TransportError, httpx.InvalidURL) as error:
            return _unreachable(self.address, error)


class AsyncLine:
    """A connection to one platform for one event loop."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
        max_connections: int = 100,
    ) -> None:
        self.address, options = _options(base_url, api_key, timeout_s)
        limits = httpx.Limits(
            max_connections=max_connections, max_keepalive_connections=max_connections
        )
        self._http = httpx.AsyncClient(transport=transport, limits=limits, **options)

    async def close(self) -> None:
        """Close the connection."""
        await self._http.aclose()

    async def __aenter__(self: A) -> A:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def hold(self, talk: Talk[T]) -> T:
        """Ask what the talk wants asked and return what it returns."""
        answer: Any = None
        while True:
            try:
                step = talk.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            answer = await self._do(step)

    async def _do(self, step: Ask | Pause) -> Answer | UnreachableError | None:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        try:
            return _answer(await self._http.send(_request(self._http, step)))
        except (httpx.TransportError, httpx.InvalidURL) as error:
            return _unreachable(self.address, error)


class Sync(Generic[P, T]):
    """A method of a blocking client that holds the talk which `talk` describes."""

    def __init__(self, talk: Callable[P, Talk[T]]) -> None:
        self._talk = talk
        self.__doc__ = talk.__doc__

    def __get__(self, line: SyncLine | None, kind: type[SyncLine]) -> Callable[P, T]:
        @wraps(self._talk)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            if line is None:
                raise TypeError(f"{self._talk.__name__}() needs a client: {kind.__name__}(…)")
            return line.hold(self._talk(*args, **kwargs))

        return call


class Async(Generic[P, T]):
    """The same for a client on an event loop: the call must be awaited."""

    def __init__(self, talk: Callable[P, Talk[T]]) -> None:
        self._talk = talk
        self.__doc__ = talk.__doc__

    def __get__(self, line: AsyncLine | None, kind: type[AsyncLine]) -> Callable[P, Awaitable[T]]:
        @wraps(self._talk)
        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            if line is None:
                raise TypeError(f"{self._talk.__name__}() needs a client: {kind.__name__}(…)")
            return await line.hold(self._talk(*args, **kwargs))

        return call


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


def _options(
    base_url: str | None, api_key: str | None, timeout_s: float
) -> tuple[str, dict[str, Any]]:
    """Return the address and what both kinds of httpx clients take."""
    if base_url is None or api_key is None:
        place = find_place()
        base_url, api_key = base_url or place.url, api_key or place.api_key
    address = root_of(base_url)
    return address, {
        "base_url": f"{address}/api/v1",
        "headers": {"Authorization": f"Bearer {api_key}", "Accept": "application/json"},
        "timeout": timeout_s,
    }


def _request(http: httpx.Client | httpx.AsyncClient, asked: Ask) -> httpx.Request:
    return http.build_request(
        asked.method,
        asked.path,
        params=asked.query or None,
        content=asked.content,
        headers=asked.headers,
        timeout=httpx.USE_CLIENT_DEFAULT if asked.timeout_s is None else asked.timeout_s,
    )


def _answer(response: httpx.Response) -> Answer:
    try:
        body = response.json() if response.content else None
    except ValueError:
        body = None
    # A date asks for nothing: this client counts in seconds.
    asked = response.headers.get("Retry-After", "")
    return Answer(response.status_code, body, float(asked) if asked.isdecimal() else 0.0)


def _unreachable(address: str, error: Exception) -> UnreachableError:
    if isinstance(error, httpx.ConnectError):
        why = f"Nobody answers at {address}: is the platform running there?"
    elif isinstance(error, httpx.TimeoutException):
        why = f"{address} did not answer in time."
    else:
        why = f"The connection to {address} failed: {str(error) or type(error).__name__}."
    found = UnreachableError(why)
    found.__cause__ = error
    return found
