"""How the in-memory platform finds the function behind a path, and what those share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote
from uuid import UUID

from opscore_sdk.testing.engine import Engine
from opscore_sdk.testing.refusals import Refused, number
from opscore_sdk.testing.sharing import Sharing

MAX_NUMBER = 2**31 - 1
_NO_SUCH = (
    "The in-memory platform has no {place}: it knows agents, sessions, single tasks and what "
    "agents of a run share. Workflows, approvals and schedules need the real one."
)
FENCE = number(-MAX_NUMBER, MAX_NUMBER, whole=True)


@dataclass
class Asked:
    """One request, read."""

    engine: Engine
    sharing: Sharing
    actor: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any
    refused_reports: set[str]
    """Tasks whose reports are refused, as late ones are."""


@dataclass
class Reply:
    """An answer; `wait_s`: it may be better a little later, ask again until then."""

    status: int
    body: Any = None
    wait_s: float = 0.0
    undo: Callable[[], None] | None = None
    """Called when nobody took the answer."""
    renew: Callable[[], Reply] | None = None
    """Gives the answer as it is now, for one that waits and must not be done again."""
    state: Callable[[], State | None] | None = None
    """Of a stream: what it shows now; None: it is over."""


Route = Callable[..., Reply]
#: Id -> what a stream shows of it.
State = Mapping[str, Mapping[str, Any]]
ROUTES: list[tuple[str, re.Pattern[str], Route]] = []


def route(method: str, path: str) -> Callable[[Route], Route]:
    """Register the function behind a method and a path; `{name}` is one part of the path."""
    pattern = re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))

    def keep(function: Route) -> Route:
        ROUTES.append((method, pattern, function))
        return function

    return keep


def routed(method: str, path: str, asked: Asked) -> Reply:
    """Answer by the function behind a path. Refused: there is none."""
    found = [
        (match, function)
        for known, pattern, function in ROUTES
        if known == method and (match := pattern.fullmatch(path))
    ]
    if found:
        # `/agents/stream` is no agent of this name.
        match, function = min(found, key=lambda one: one[0].re.groups)
        return function(asked, **{k: unquote(v) for k, v in match.groupdict().items()})
    raise Refused(501, _NO_SUCH.format(place=f"{method} {path}"))


def find(known: Mapping[str, Any], key: str, kind: str) -> Any:
    """Return what has this id. Refused: 404."""
    try:
        return known[str(UUID(key))]
    except (KeyError, ValueError):
        raise Refused(404, f"There is no {kind} {key}.") from None


def page(path: str, rows: Iterable[Mapping[str, Any]], query: Mapping[str, str]) -> Reply:
    """Return one page of rows, newest first."""
    size = query.get("limit", "50")
    if not size.isdigit() or not 1 <= int(size) <= 200:
        raise Refused(400, "The page cannot be read.", {"limit": "must be 1 to 200"})
    left = sorted(rows, key=lambda row: row["id"], reverse=True)
    if "after" in query:
        left = [row for row in left if str(row["id"]) < query["after"]]
    page = left[: int(size)]
    following = f"{path}?limit={size}&after={page[-1]['id']}" if len(left) > int(size) else None
    return Reply(200, {"results": page, "next": following})
