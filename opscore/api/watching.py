"""`?wait=30s`: an answer that comes when what it shows has ended, or when the time is over."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar
from uuid import UUID
from weakref import WeakKeyDictionary

from django.http import HttpRequest
from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request
from rest_framework.response import Response

from opscore import keys
from opscore.api.auth import key_of
from opscore.api.endpoint import Endpoint, pruned
from opscore.api.held import held
from opscore.api.shown import ReadyJSON
from opscore.api.threads import in_thread
from opscore.api.together import Together
from opscore.durations import parse_duration
from opscore.errors import InvalidError, NotFoundError, Problem, UnauthorizedError
from opscore.logs import get_logger

log = get_logger(__name__)

#: The longest wait; proxies cut silent connections after a minute.
MAX_WAIT_S = 60.0
#: Between two looks while anybody waits: what it adds to an answer, and one query for all.
EVERY_S = 0.1
#: Looks between two checks of the keys of those who wait: a second.
_LOOKS_A_CHECK = 10
_NUMBER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3})?")

WAIT = OpenApiParameter(
    "wait",
    str,
    pattern="^(0|[1-9]|[1-5][0-9]|60)s?$|^1m$",
    description="Answer when it has ended, or with its present state after this time: `30`, `30s`, "
    "`1m`; at most a minute.",
)

#: Given ids, returns those that have ended (or are gone); called in a thread.
Look = Callable[[Sequence[UUID]], Collection[UUID]]


@dataclass(eq=False)
class _Waiter:
    """One request that waits."""

    key_id: int
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    has_ended: bool = False


class Watch:
    """Looks for all requests of this event loop that wait for an end, while there are any."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._waiting: dict[UUID, set[_Waiter]] = {}
        self._looking: asyncio.Task[None] | None = None
        self.together = Together[bytes | None]()
        """Where those who waited for the same have its body made once."""

    async def ended(self, ticket: UUID, key_id: int, timeout_s: float) -> bool:
        """Wait until the thing with this id has ended; False when the wait was over first.

        It is over with its time, with the key, and with the server.
        """
        waiter = _Waiter(key_id)
        self._waiting.setdefault(ticket, set()).add(waiter)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_on())
        try:
            with held.hold(key_id, waiter.woken.set):
                async with asyncio.timeout(timeout_s):
                    await waiter.woken.wait()
        except TimeoutError:
            return False
        finally:
            self._forget(ticket, waiter)
        return waiter.has_ended

    def _forget(self, ticket: UUID, waiter: _Waiter) -> None:
        self._waiting[ticket].discard(waiter)
        if not self._waiting[ticket]:
            del self._waiting[ticket]

    async def _look_on(self) -> None:
        try:
            for number in itertools.count(1):
                if not self._waiting:
                    return
                await asyncio.sleep(EVERY_S)
                try:
                    await self._look_once(check=number % _LOOKS_A_CHECK == 0)
                except Exception as error:  # noqa: BLE001 - the next look comes soon
                    log.warning("watch.blind", error=str(error).strip())
        finally:
            self._looking = None

    async def _look_once(self, *, check: bool) -> None:
        for ticket in await in_thread(self._look)(list(self._waiting)):
            for waiter in self._waiting.get(ticket, ()):
                waiter.has_ended = True
                waiter.woken.set()
        if check:
            waiters = [waiter for group in self._waiting.values() for waiter in group]
            usable = await in_thread(keys.still_usable)([waiter.key_id for waiter in waiters])
            for waiter in waiters:
                if waiter.key_id not in usable:
                    waiter.woken.set()


_by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Look, Watch]] = WeakKeyDictionary()


def watch(look: Look) -> Watch:
    """Return what looks with this function for the running event loop."""
    watches = _by_loop.setdefault(asyncio.get_running_loop(), {})
    return watches.setdefault(look, Watch(look))


class WatchedEndpoint(Endpoint):
    """An endpoint one of whose methods honours `?wait=`.

    While it waits, a request holds no thread and no database connection. Before the wait a GET
    looks only whether there is something to wait for; after it those who asked the same question
    about the same thing share one body, and each key is checked again. Under WSGI, where a wait
    would hold a thread, the first answer is sent at once.
    """

    #: The method that may wait.
    waits: ClassVar[str] = "GET"
    wait_s: float = 0.0

    @staticmethod
    def look(ids: Sequence[UUID]) -> Collection[UUID]:
        """Return which of these have ended or are gone."""
        raise NotImplementedError

    def patience(self, request: Request) -> float:
        """Return the seconds that the request may wait. Raises InvalidError."""
        return wait_of(request.query_params.get("wait"))

    def alive(self, **kwargs: Any) -> UUID | None:
        """Return the id that a GET with this path waits for; None: there is nothing to wait for."""
        raise NotImplementedError

    def ticket(self, shown: Mapping[str, Any]) -> UUID | None:
        """Return the id that the answer of another method waits for; None: it has ended."""
        raise NotImplementedError

    def shown(self, ticket: UUID) -> Any:
        """Return the body for what has this id now. Raises NotFoundError."""
        raise NotImplementedError

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Read `wait`, and refuse one wait too many, before anything is done."""
        super().initial(request, *args, **kwargs)
        if request.method != self.waits:
            return
        self.wait_s = self.patience(request)
        if hasattr(request, "waited_for"):
            setattr(self, "get", self._waited)  # noqa: B010
        elif self.wait_s:
            held.check(key_of(request).pk)
            if self.waits == "GET" and getattr(request, "may_wait", False):
                setattr(self, "get", self._before(self.get))  # type: ignore[attr-defined]  # noqa: B010

    def _before(self, get: Callable[..., Response]) -> Callable[..., Response]:
        def first(request: Request, **kwargs: Any) -> Response:
            ticket = self.alive(**kwargs)
            if ticket is None:
                return get(request, **kwargs)
            response = Response(None)
            response.waits_for = ticket  # type: ignore[attr-defined]
            return response

        return first

    def _waited(self, request: Request, **kwargs: Any) -> Response:
        body: bytes | None = request.waited_for  # type: ignore[attr-defined]
        return Response(_there(body))

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Mark an answer that is worth to wait for, a replayed one too."""
        response.waiting_view = self
        if hasattr(response, "waits_for"):
            # It has no body yet.
            return response
        if self.wait_s and self.waits != "GET" and response.status_code < 300:
            response.waits_for = self.ticket(response.data)
        return super().finalize_response(request, response, *args, **kwargs)

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        """Return an async view around the usual one."""
        once = super().as_view(**initkwargs)

        async def view(request: HttpRequest, **kwargs: Any) -> Any:
            # An attribute, for DRF hands on what it does not know itself.
            request.may_wait = True  # type: ignore[attr-defined]
            response = await in_thread(_done)(once, request, kwargs)
            ticket = getattr(response, "waits_for", None)
            if ticket is None:
                return response
            waiting: WatchedEndpoint = response.waiting_view
            key_id: int = request.api_key.pk  # type: ignore[attr-defined]
            watched = watch(cls.look)
            has_ended = await watched.ended(ticket, key_id, waiting.wait_s)
            question = (ticket, has_ended, request.META["QUERY_STRING"])
            body = await watched.together.do(question, lambda: waiting.body(ticket))
            if request.method == "GET":
                request.waited_for = body  # type: ignore[attr-defined]
                return await in_thread(_done)(once, request, kwargs)
            return await in_thread(_renewed)(response, key_id, body)

        # What DRF's own view carries: the schema generator finds the class by it.
        view.cls = cls  # type: ignore[attr-defined]
        view.initkwargs = initkwargs  # type: ignore[attr-defined]
        view.csrf_exempt = True  # type: ignore[attr-defined]
        view.once = once  # type: ignore[attr-defined]
        return view

    def body(self, ticket: UUID) -> bytes | None:
        """Return the rendered body for what has this id now; None: it is gone."""
        try:
            shown = self.shown(ticket)
        except NotFoundError:
            return None
        return ReadyJSON().render(pruned(shown, self.only))


def wait_of(text: str | None) -> float:
    """Return the seconds of `30`, `30s` or `1m`; 0 for none. Raises InvalidError."""
    if text is None or text in {"0", "0s"}:
        return 0.0
    try:
        seconds = float(text) if _NUMBER.fullmatch(text) else parse_duration(text)
    except ValueError as error:
        raise InvalidError("The wait cannot be read.", [Problem(str(error), "wait")]) from None
    if seconds > MAX_WAIT_S:
        problem = Problem(f"must be at most {MAX_WAIT_S:g} s, ask again after that", "wait")
        raise InvalidError("The wait is too long.", [problem])
    return seconds


def _done(once: Callable[..., Any], request: HttpRequest, kwargs: dict[str, Any]) -> Any:
    response = once(request, **kwargs)
    # What waits is rendered when it has waited.
    return response if getattr(response, "waits_for", None) else response.render()


def _renewed(response: Response, key_id: int, body: bytes | None) -> Any:
    if key_id not in keys.still_usable([key_id]):
        raise UnauthorizedError(keys.NOT_VALID)
    response.data = _there(body)
    return response.render()


def _there(body: bytes | None) -> bytes:
    if body is None:
        raise NotFoundError("It is no more.")
    return body
