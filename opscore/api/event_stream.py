"""`GET /events/stream`: what happens, as it happens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from opscore.api.events import EventSerializer
from opscore.api.streams import STREAM, Picture, Source, State, StreamEndpoint, Topic, encode
from opscore.database import query
from opscore.loading import columns, loaded
from opscore.models import Event

#: Events that a stream begins with.
_LATEST = 100
#: New events that are told one by one; where more come within one look, readers begin anew.
_MOST = 5000
#: An event may commit after others with higher ids: so far below the highest one is looked for it.
_MARGIN = 2000
_NEW = f"""
SELECT {columns(Event)} FROM opscore_event
 WHERE project_id = %(project)s AND id > %(floor)s AND id <> ALL(%(seen)s::bigint[])
 ORDER BY id LIMIT %(most)s"""  # noqa: S608 - names of columns


@dataclass(frozen=True)
class _Seen:
    """Which events readers have been told of."""

    floor: int
    """Everything up to this id counts as told."""
    ids: frozenset[int]
    """What was told above it."""


def _events(known: Mapping[int, Picture | None]) -> Mapping[int, Picture]:
    return {
        project: _latest(project) if before is None else _later(project, before)
        for project, before in known.items()
    }


def _latest(project: int, *, begins: bool = False) -> Picture:
    """Return the latest events, and take those before them for told."""
    mine = Event.objects.filter(project=project).order_by("-id")
    # The ids first: what commits between the two queries is told as new, if not shown here.
    window = list(mine.values_list("id", flat=True)[:_MARGIN])
    rows = list(mine[:_LATEST])[::-1]
    return Picture(_shown(rows), _seen([*window, *(row.pk for row in rows)]), begins=begins)


def _later(project: int, before: Picture) -> Picture:
    seen: _Seen = before.mark
    params = {"project": project, "floor": seen.floor, "seen": list(seen.ids), "most": _MOST + 1}
    rows = [loaded(Event, row) for row in query(_NEW, params)]
    if len(rows) > _MOST:
        return _latest(project, begins=True)
    if not rows:
        return before
    new = _shown(rows)
    latest = sorted({**before.items, **new}.items(), key=lambda item: int(item[0]))[-_LATEST:]
    mark = _seen([*seen.ids, *(row.pk for row in rows)], seen.floor)
    return Picture(dict(latest), mark, fresh=list(new.values()))


def _seen(ids: Sequence[int], floor: int = 0) -> _Seen:
    floor = max(floor, max(ids, default=0) - _MARGIN)
    return _Seen(floor, frozenset(id_ for id_ in ids if id_ > floor))


def _shown(rows: Sequence[Event]) -> State:
    return {str(row["id"]): encode(row) for row in EventSerializer(rows, many=True).data}


EVENTS = Source(_events)


class EventStream(StreamEndpoint):
    """What happens in the project, as it happens."""

    def topic(self, **kwargs: Any) -> Topic:
        """Return the events of the project."""
        return Topic(EVENTS, self.project.pk)

    @extend_schema(responses=STREAM)
    def get(self, request: Request) -> Response:
        """Stream the latest 100 events (server-sent events), then the new ones."""
        return self.stream()
