"""The outermost frame: request ids, one log line for each write, and API paths served bare."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve

from opscore import origin
from opscore.api import problems
from opscore.api.headers import protect
from opscore.api.threads import in_thread
from opscore.config import load_config
from opscore.ids import uuid7
from opscore.logs import get_logger

log = get_logger(__name__)

#: First segments of paths that are for browsers (sessions, CSRF, HTML), as `/` is; all others
#: are API.
PAGES = frozenset({"admin", "static"})
_SANE_ID = re.compile(r"[A-Za-z0-9._:+/=-]{1,100}")
_READS = frozenset({"GET", "HEAD", "OPTIONS"})

View = Callable[..., Any]


@dataclass(frozen=True)
class Route:
    """A view with what the URL says."""

    view: View
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class RequestFrame:
    """Serve API paths itself, without the middleware of pages; pass pages on.

    So no API answer is ever a redirect, an HTML page or a CSRF failure, and a view on an API
    path costs no session. Works under WSGI and ASGI.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Answer the request."""
        return self._answer_async(request) if self._is_async else self._answer(request)

    def _answer(self, request: HttpRequest) -> HttpResponseBase:
        with _framed(request) as done:
            if is_page(request.path_info):
                return done(_other_host(request) or self.get_response(request))
            try:
                route = _routed(request)
                return done(_called(getattr(route.view, "once", route.view), request, route))
            except Exception as error:  # noqa: BLE001 - the last place before the user
                return done(_failed(error))

    async def _answer_async(self, request: HttpRequest) -> HttpResponseBase:
        with _framed(request) as done:
            if is_page(request.path_info):
                return done(_other_host(request) or await self.get_response(request))
            try:
                route = _routed(request)
                if _is_async(route):
                    return done(await route.view(request, *route.args, **route.kwargs))
                apart = getattr(getattr(route.view, "cls", None), "apart", False)
                return done(await in_thread(_called, apart=apart)(route.view, request, route))
            except Exception as error:  # noqa: BLE001 - the last place before the user
                return done(_failed(error))


def is_page(path: str) -> bool:
    """Tell whether the path is for browsers, not for clients of the API."""
    return path == "/" or path.removeprefix("/").partition("/")[0] in PAGES


def sane_id(given: str) -> str:
    """Return the request id that a client chose, if it can be logged; else a new one."""
    return given if _SANE_ID.fullmatch(given) else uuid7().hex


@contextmanager
def _framed(request: HttpRequest) -> Iterator[Callable[[HttpResponseBase], HttpResponseBase]]:
    request_id = sane_id(request.headers.get("X-Request-ID", ""))
    started = time.monotonic()

    def done(response: HttpResponseBase) -> HttpResponseBase:
        response["X-Request-ID"] = request_id
        protect(response, request.path_info, is_page=is_page(request.path_info))
        if not is_page(request.path_info):
            response.setdefault("Cache-Control", "no-store")
            if not response.streaming:
                # The server sends a large body in parts, and would not name its length.
                response.setdefault("Content-Length", str(len(response.content)))  # type: ignore[attr-defined]
            # Django would add a line of its own for every 4xx.
            response._has_been_logged = True  # type: ignore[attr-defined]  # noqa: SLF001
        if request.method not in _READS:
            _log_write(request, response, started)
        return response

    if not origin.is_trusted(request.META.get("REMOTE_ADDR")):
        # Whoever could send it would be taken for a client on HTTPS.
        request.META.pop("HTTP_X_FORWARDED_PROTO", None)
    source = origin.Origin(origin.address_of(request), request_id)
    with structlog.contextvars.bound_contextvars(request_id=request_id), origin.begun(source):
        yield done


def _log_write(request: HttpRequest, response: HttpResponseBase, started: float) -> None:
    log.info(
        "request",
        method=request.method,
        path=request.path_info,
        status=response.status_code,
        ms=round((time.monotonic() - started) * 1000, 1),
        key=getattr(request, "key_name", ""),
    )


def _other_host(request: HttpRequest) -> HttpResponse | None:
    """Refuse pages under a name that is not ours; Django would log a traceback for each."""
    try:
        request.get_host()
    except DisallowedHost:
        words = "Ops-Core has no pages under this host name (OPSCORE_ALLOWED_HOSTS)."
        answer = HttpResponse(words, status=400, content_type="text/plain")
        # Or each would be a line in the console of the operator.
        answer._has_been_logged = True  # type: ignore[attr-defined]  # noqa: SLF001
        return answer
    return None


def _routed(request: HttpRequest) -> Route:
    if "\x00" in request.path_info or "%00" in request.META.get("QUERY_STRING", ""):
        raise _Bad(problems.Failure(400, "The address holds a NUL character."))
    if int(request.META.get("CONTENT_LENGTH") or 0) > load_config().max_body_bytes:
        raise _Bad(problems.too_large())
    try:
        match = resolve(request.path_info)
    except Resolver404:
        detail = f"There is nothing at {request.path_info}; /api/v1/docs lists what there is."
        raise _Bad(problems.Failure(404, detail)) from None
    request.resolver_match = match
    return Route(match.func, match.args, match.kwargs)


def _is_async(route: Route) -> bool:
    return iscoroutinefunction(route.view)


def _called(view: View, request: HttpRequest, route: Route) -> HttpResponseBase:
    response = view(request, *route.args, **route.kwargs)
    return rendered(response)


def rendered(response: HttpResponse) -> HttpResponse:
    """Render an answer of DRF, in the thread that made it."""
    render = getattr(response, "render", None)
    return render() if render is not None else response


class _Bad(Exception):  # noqa: N818 - carries an answer, is no error of ours
    def __init__(self, failure: problems.Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


def _failed(error: Exception) -> HttpResponse:
    if isinstance(error, _Bad):
        return error.failure.respond()
    failure = problems.translate(error)
    if failure is None:
        log.error("request failed", exc_info=error)
        failure = problems.INTERNAL
    return failure.respond()
