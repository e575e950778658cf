"""Which calls of the API are recorded: those that change something, and those that were refused."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from rest_framework.request import Request
from rest_framework.response import Response

from opscore import origin
from opscore.api.auth import is_executors, scope_for
from opscore.api.idempotency import REPLAYED
from opscore.audit.record import Actor, note, refusal_is_noted
from opscore.models import ApiKey

if TYPE_CHECKING:
    from rest_framework.views import APIView

_READS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")
#: What administrators send is kept whole up to here: specs and rules, no inputs of runs.
_MOST_BYTES = 4000


def note_call(view: APIView, request: Request, response: Response) -> None:
    """Write the row of one call of the API, if it is one that is recorded.

    The executor protocol is not, when it succeeds: it would double the writes of every task, and
    the tasks' own rows tell it all.
    """
    status = response.status_code
    # `request.auth` would ask for a key that was refused once more, and raise.
    key: ApiKey | None = getattr(request._request, "api_key", None)  # noqa: SLF001 - DRF's name
    # What strangers try to read is not worth a row each.
    if request.method in _READS and not (key and status == 403):
        return
    if status in {401, 403}:
        if not refusal_is_noted("call", key.prefix if key else ""):
            return
    elif status >= 400 or not _is_change(view, request, key):
        return
    note(
        f"{request.method} {_route(request)}",
        Actor(key.name, "key", key.prefix) if key else Actor(),
        target=request.path_info.removeprefix("/api/v1"),
        status=status,
        project=key.project if key else None,
        data=_told(view, request, response),
    )


def _is_change(view: APIView, request: Request, key: ApiKey | None) -> bool:
    method = request.method or ""
    return scope_for(view, method) != "read" and not is_executors(view, method, key)


def _told(view: APIView, request: Request, response: Response) -> dict[str, Any]:
    data: dict[str, Any] = {}
    if REPLAYED in response:
        data["replayed"] = True
    if changes := origin.current().changes:
        data["changes"] = changes
    is_open = not getattr(view, "is_confidential", False)
    if (
        is_open
        and response.status_code < 400
        and scope_for(view, request.method or "") == "admin"
        and request.data
    ):
        sent = json.dumps(request.data)
        data["sent"] = request.data if len(sent) <= _MOST_BYTES else f"{len(sent)} characters"
    return data


def _route(request: Request) -> str:
    match = request.resolver_match
    route = match.route if match else request.path_info
    return "/" + _PARAMETER.sub(r"{\1}", route).removeprefix("api/v1/")


class Recorded:
    """A view whose calls are recorded, once their answer is known and all is committed."""

    def finalize_response(
        self, request: Request, response: Response, *args: Any, **kwargs: Any
    ) -> Response:
        """Write the row, then finish the answer."""
        note_call(self, request, response)  # type: ignore[arg-type]
        finished: Response = super().finalize_response(request, response, *args, **kwargs)  # type: ignore[misc]
        return finished
