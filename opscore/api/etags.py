"""ETags: an edit of what has changed meanwhile is refused, and what has not changed is not sent."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.http import Http404, HttpResponseNotModified
from rest_framework.request import Request
from rest_framework.response import Response

from opscore.api.auth import project_of
from opscore.database import query
from opscore.errors import InvalidError, NotFoundError, OpsCoreError
from opscore.models import Project

#: A tag is two digests: of what edits change, and of the whole answer with its times and counts.
#: An edit is compared with the first one only: a heartbeat must not refuse it.
_LENGTH = 16

#: What `If-Match` may be.
PATTERN = r'\*|(W/)?"[!#-~]{0,100}"( ?, ?(W/)?"[!#-~]{0,100}"){0,20}'
_TAGS = re.compile(PATTERN)

# All edits of one kind in a project, with `If-Match` or without: nothing comes between look and
# change, by whichever of its names a thing is called.
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtextextended(%(name)s, 1))"


class ChangedMeanwhileError(OpsCoreError):
    """This was changed since you read it: read it again, then decide."""

    status = 412
    code = "precondition_failed"


class Edited(Protocol):
    """A view of something that is edited; see `opscore.api.endpoint.Endpoint`."""

    edited_now: Any

    def edited(self, **kwargs: Any) -> Any:
        """Return what edits change; None where there is nothing yet."""
        ...


def guarded(
    method: Callable[..., Response], request: Request, view: Edited
) -> Callable[..., Response]:
    """Wrap a method that edits: check `If-Match` and `If-None-Match`, then do it, at one stroke."""

    def edit(*args: Any, **kwargs: Any) -> Response:
        with transaction.atomic():
            hold(project_of(request), type(view).__name__)
            _check(request, lambda: view.edited(**kwargs))
            response = method(*args, **kwargs)
            if request.method != "DELETE":
                view.edited_now = edited_of(view, kwargs)
            return response

    return edit


def hold(project: Project, kind: str) -> None:
    """Keep all other edits of one kind waiting until the open transaction ends."""
    query(_ONE_AT_A_TIME, {"name": f"{project.pk} {kind}"})


def edited_of(view: Edited, kwargs: Mapping[str, Any]) -> Any:
    """Return what edits change of what the path names; None: nothing has this name now."""
    try:
        return view.edited(**kwargs)
    except (NotFoundError, Http404):
        return None


def refuse(request: Request) -> None:
    """Raise InvalidError where a condition is sent to what honours none."""
    if {"If-Match", "If-None-Match"} & set(request.headers):
        raise InvalidError("If-Match and If-None-Match are not honoured here; leave them out.")


def _check(request: Request, edited: Callable[[], Any]) -> None:
    match = request.headers.get("If-Match")
    none_match = request.headers.get("If-None-Match")
    if match is None and none_match is None:
        return
    for header in (match, none_match):
        # To take it for no header could lose an edit.
        if header is not None and not _TAGS.fullmatch(header):
            raise InvalidError('If-Match and If-None-Match take `*` or tags in quotes: "a", "b".')
    present = edited()
    if match is not None and (present is None or not _names(match, digest(present))):
        raise ChangedMeanwhileError
    if none_match is not None and present is not None and _names(none_match, digest(present)):
        raise ChangedMeanwhileError("There is one already, or it is the one that you name.")


def _names(header: str, wanted: str) -> bool:
    """Tell whether a list of tags holds one whose part about edits is `wanted`, or is `*`."""
    tags = [tag.strip() for tag in header.split(",")]
    return "*" in tags or any(_bare(tag).partition(".")[0] == wanted for tag in tags)


def _bare(tag: str) -> str:
    # Proxies that compress make a tag weak; it still names the same thing.
    return tag.removeprefix("W/").strip('"')


def digest(value: Any) -> str:
    """Return the digest of anything that JSON can say."""
    text = json.dumps(value, sort_keys=True, cls=DjangoJSONEncoder)
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def tagged(response: Any, request: Request, edited: Any = None) -> None:
    """Have an answer carry its tag, and be empty (304) where the client has it already.

    `edited` is what edits change of it; None: it is not edited.
    """
    part = "" if edited is None else digest(edited)

    def finish(rendered: Any) -> Any:
        whole = hashlib.sha256(rendered.content).hexdigest()[:_LENGTH]
        tag = f"{part}.{whole}" if part else whole
        headers = {"ETag": f'"{tag}"', "Cache-Control": "private, no-cache"}
        reads = request.method in {"GET", "HEAD"}
        known = request.headers.get("If-None-Match", "") if reads else ""
        if "*" in known or tag in [_bare(one.strip()) for one in known.split(",")]:
            return HttpResponseNotModified(headers=headers)
        for name, value in headers.items():
            rendered[name] = value
        return None

    response.add_post_render_callback(finish)
