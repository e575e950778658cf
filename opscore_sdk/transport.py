"""Two thin ways to hold a talk with the platform: in the caller's thread, or on an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from email.utils import parsedate_to_datetime
from functools import wraps
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

import httpx

from opscore_sdk.asking import Answer, Ask, HangUp, Hear, Listen, Opened, Pause, Step, Talk
from opscore_sdk.errors import UnreachableError, UnsendableError
from opscore_sdk.listening import MEDIA_TYPE, Change, Stream
from opscore_sdk.place import find_place

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="SyncLine")
A = TypeVar("A", bound="AsyncLine")
#: What is asked for above this is a mistake, not a wish, seconds.
_LONGEST_S = 3600.0


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

    def _do(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        try:
            if isinstance(step, Listen):
                return self._listen(step.request)
            if isinstance(step, Hear):
                return next(step.opened.lines, None)
            if isinstance(step, HangUp):
                return step.opened.response.close()
            return _answer(self._http.send(_request(self._http, step)))
        except httpx.TransportError as error:
            return _unreachable(self.address, error)

    def _listen(self, request: Ask) -> Answer | Opened:
        response = self._http.send(_request(self._http, request), stream=True)
        if _streams(response):
            return Opened(response, response.iter_lines())
        response.read()
        response.close()
        return _answer(response)


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

    async def _do(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        try:
            if isinstance(step, Listen):
                return await self._listen(step.request)
            if isinstance(step, Hear):
                return await anext(step.opened.lines, None)
            if isinstance(step, HangUp):
                return await step.opened.response.aclose()
            return _answer(await self._http.send(_request(self._http, step)))
        except httpx.TransportError as error:
            return _unreachable(self.address, error)

    async def _listen(self, request: Ask) -> Answer | Opened:
        response = await self._http.send(_request(self._http, request), stream=True)
        if _streams(response):
            return Opened(response, response.aiter_lines())
        await response.aread()
        await response.aclose()
        return _answer(response)


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


class SyncStream(Generic[P]):
    """A method of a blocking client that yields the changes of a stream."""

    def __init__(self, talk: Callable[P, Stream]) -> None:
        self._talk = talk
        self.__doc__ = talk.__doc__

    def __get__(
        self, line: SyncLine | None, kind: type[SyncLine]
    ) -> Callable[P, Generator[Change, None, None]]:
        @wraps(self._talk)
        def call(*args: P.args, **kwargs: P.kwargs) -> Generator[Change, None, None]:
            if line is None:
                raise TypeError(f"{self._talk.__name__}() needs a client: {kind.__name__}(…)")
            stream = self._talk(*args, **kwargs)
            try:
                while not stream.is_over:
                    change = line.hold(stream.next())
                    if change is not None:
                        yield change
            finally:
                line.hold(stream.close())

        return call


class AsyncStream(Generic[P]):
    """The same for a client on an event loop: `async for change in client.stream_run(…)`."""

    def __init__(self, talk: Callable[P, Stream]) -> None:
        self._talk = talk
        self.__doc__ = talk.__doc__

    def __get__(
        self, line: AsyncLine | None, kind: type[AsyncLine]
    ) -> Callable[P, AsyncGenerator[Change, None]]:
        @wraps(self._talk)
        async def call(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Change, None]:
            if line is None:
                raise TypeError(f"{self._talk.__name__}() needs a client: {kind.__name__}(…)")
            stream = self._talk(*args, **kwargs)
            try:
                while not stream.is_over:
                    change = await line.hold(stream.next())
                    if change is not None:
                        yield change
            finally:
                await line.hold(stream.close())

        return call


def _streams(response: httpx.Response) -> bool:
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
    return response.status_code == 200 and kind == MEDIA_TYPE


def _options(
    base_url: str | None, api_key: str | None, timeout_s: float
) -> tuple[str, dict[str, Any]]:
    """Return the address and what both kinds of httpx clients take."""
    place = find_place(url=base_url, api_key=api_key)
    return place.url, {
        "base_url": f"{place.url}/api/v1",
        "headers": {"Authorization": f"Bearer {place.api_key}", "Accept": "application/json"},
        "timeout": timeout_s,
    }


def _request(http: httpx.Client | httpx.AsyncClient, asked: Ask) -> httpx.Request:
    try:
        return http.build_request(
            asked.method,
            asked.path,
            params=asked.query or None,
            content=asked.content,
            headers=asked.headers,
            timeout=httpx.USE_CLIENT_DEFAULT if asked.timeout_s is None else asked.timeout_s,
        )
    except (UnicodeError, httpx.InvalidURL) as error:
        raise UnsendableError(f"{asked.method} {asked.path} cannot be sent: {error}.") from None


def _answer(response: httpx.Response) -> Answer:
    try:
        body = response.json() if response.content else None
    except ValueError:
        body = None
    return Answer(response.status_code, body, _retry_after_s(response))


def _retry_after_s(response: httpx.Response) -> float:
    """Return what `Retry-After` asks for: seconds, or until a date by the server's own clock."""
    asked = response.headers.get("Retry-After", "").strip()
    if asked.isascii() and asked.isdecimal():
        return min(float(asked), _LONGEST_S)
    try:
        until = parsedate_to_datetime(asked)
        now = parsedate_to_datetime(response.headers["Date"])
        return min(max((until - now).total_seconds(), 0.0), _LONGEST_S)
    except (KeyError, TypeError, ValueError, OverflowError):
        return 0.0


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
