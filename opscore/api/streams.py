"""Server-sent events: first the present state of what is shown, then its changes."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from django.core.serializers.json import DjangoJSONEncoder
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse
from rest_framework.request import Request
from rest_framework.response import Response

from opscore import keys
from opscore.api.auth import key_of
from opscore.api.endpoint import Endpoint
from opscore.api.held import held
from opscore.api.threads import in_thread
from opscore.api.together import Together
from opscore.errors import UnavailableError
from opscore.logs import get_logger

log = get_logger(__name__)

MEDIA_TYPE = "text/event-stream"
#: Between two looks while anybody reads: changes that come together are sent together.
EVERY_S = 0.5
#: A comment after so much silence; proxies cut silent connections after a minute.
HEARTBEAT_S = 15.0
#: Frames that a reader may be behind. It comes back and gets the present state.
BEHIND = 100
#: Items of all topics together, about 500 bytes each, that one process keeps while they are read.
MOST_ITEMS = 500_000
#: Looks between two checks of the readers' keys: a second.
_LOOKS_A_CHECK = 2

STREAM = {
    (200, MEDIA_TYPE): OpenApiResponse(
        OpenApiTypes.STR,
        description="`event: snapshot` with `items`, then `event: change` with `items` that are new "
        "or changed and `gone`, the ids of those that are no more. A later `snapshot` replaces everything.",
    )
}

State = Mapping[str, str]
"""Id -> what is shown of it, as JSON."""


@dataclass(frozen=True, eq=False)
class Picture:
    """What is shown of a topic at one moment."""

    items: State
    mark: Any = None
    """What its source goes on from."""
    fresh: Sequence[str] | None = None
    """Items that are new since the picture before; None: whatever differs from that one."""
    begins: bool = False
    """Whether readers must begin anew: there is more than can be told as a change."""

    @cached_property
    def frame(self) -> bytes:
        """The snapshot; made once for all readers."""
        return _frame("snapshot", f'{{"items":{_array(self.items.values())}}}')


@dataclass(frozen=True)
class Source:
    """Where the pictures of some kind of topic come from."""

    look: Callable[[Mapping[Any, Picture | None]], Mapping[Any, Picture]]
    """Given what is read about, each with its picture before, returns the present ones.

    Called in a thread. The very same picture says that nothing has changed."""


@dataclass(frozen=True)
class Topic:
    """What somebody reads about."""

    source: Source
    about: Hashable


@dataclass(eq=False)
class Reader:
    """One connection."""

    key_id: int
    frames: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue(BEHIND))
    over: bool = False

    def send(self, frame: bytes) -> None:
        """Queue a frame; cut off a reader that does not keep up."""
        try:
            self.frames.put_nowait(frame)
        except asyncio.QueueFull:
            self.over = True


class Board:
    """Looks for all readers of this event loop, while there are any; no thread stays with one."""

    def __init__(self) -> None:
        self._readers: dict[Topic, set[Reader]] = {}
        self._pictures: dict[Topic, Picture] = {}
        self._looking: asyncio.Task[None] | None = None
        self._together = Together[Picture | None]()

    async def picture(self, topic: Topic) -> Picture | None:
        """Return what a reader of the topic begins with; None: there is no such thing.

        Raises UnavailableError where the readers of this process follow too much already.
        """
        known = self._pictures.get(topic)
        if known is not None:
            return known
        found = await self._together.do(topic, lambda: _first(topic))
        if found is not None and self._size() + len(found.items) > MOST_ITEMS:
            raise UnavailableError("Too much is followed already in this web process; try later.")
        return found

    async def read(self, topic: Topic, key_id: int, picture: Picture) -> AsyncIterator[bytes]:
        """Yield what one reader is sent; `picture` is the present one, for the first of a topic."""
        reader = Reader(key_id)
        self._readers.setdefault(topic, set()).add(reader)
        # What the next change is compared with, and so what this reader must begin with.
        picture = self._pictures.setdefault(topic, picture)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_on())
        try:
            with held.hold(key_id, lambda: _end(reader)):
                yield picture.frame
                # It would be kept for as long as the stream lasts.
                del picture
                while not reader.over:
                    yield await _next(reader)
        finally:
            self._leave(topic, reader)

    def _leave(self, topic: Topic, reader: Reader) -> None:
        self._readers[topic].discard(reader)
        if not self._readers[topic]:
            del self._readers[topic], self._pictures[topic]

    def _size(self) -> int:
        return sum(len(picture.items) for picture in self._pictures.values())

    async def _look_on(self) -> None:
        try:
            for number in itertools.count():
                if not self._readers:
                    return
                await asyncio.sleep(EVERY_S)
                await self._look(check=number % _LOOKS_A_CHECK == 0)
        finally:
            self._looking = None

    async def _look(self, *, check: bool) -> None:
        looks = [self._look_at(source) for source in {topic.source for topic in self._readers}]
        # One that fails must not blind the others; the next look comes soon.
        for look in [self._end_revoked(), *looks] if check else looks:
            try:
                await look
            except Exception as error:  # noqa: BLE001 - whatever it is
                log.warning("streams.blind", error=str(error).strip())

    async def _look_at(self, source: Source) -> None:
        known = {
            topic: picture for topic, picture in self._pictures.items() if topic.source is source
        }
        about = {topic.about: picture for topic, picture in known.items()}
        told = await in_thread(_compared)(source, about)
        for topic, picture in known.items():
            # Where everybody has left meanwhile, a new reader began with a newer one.
            if self._pictures.get(topic) is picture:
                self._tell(topic, told.get(topic.about))

    async def _end_revoked(self) -> None:
        readers = [reader for group in self._readers.values() for reader in group]
        usable = await in_thread(keys.still_usable)([reader.key_id for reader in readers])
        for reader in readers:
            if reader.key_id not in usable:
                _end(reader)

    def _tell(self, topic: Topic, told: tuple[Picture, bytes] | None) -> None:
        readers = self._readers[topic]
        if told is None:
            for reader in readers:
                _end(reader)
            return
        self._pictures[topic], news = told
        for reader in readers if news else ():
            reader.send(news)


def _first(topic: Topic) -> Picture | None:
    return topic.source.look({topic.about: None}).get(topic.about)


def _compared(
    source: Source, known: Mapping[Any, Picture]
) -> dict[Hashable, tuple[Picture, bytes]]:
    """Return the present pictures, each with the frame that tells what is new; b'': nothing."""
    found = source.look(known)
    return {about: (new, _news(known[about], new)) for about, new in found.items()}


def _news(old: Picture, new: Picture) -> bytes:
    if new is old:
        return b""
    if new.begins:
        return new.frame
    items, gone = new.fresh, list[str]()
    if items is None:
        items = [text for id_, text in new.items.items() if old.items.get(id_) != text]
        gone = [id_ for id_ in old.items if id_ not in new.items]
    told = f'{{"items":{_array(items)},"gone":{encode(gone)}}}'
    return _frame("change", told) if items or gone else b""


def _end(reader: Reader) -> None:
    reader.over = True
    # It may be waiting.
    reader.send(b": this is the end\n\n")


async def _next(reader: Reader) -> bytes:
    try:
        async with asyncio.timeout(HEARTBEAT_S):
            return await reader.frames.get()
    except TimeoutError:
        return b": still here\n\n"


def encode(data: Any) -> str:
    """Return what is shown as JSON."""
    return json.dumps(data, cls=DjangoJSONEncoder, separators=(",", ":"))


def pictured(rows: Iterable[Mapping[str, Any]]) -> Picture:
    """Return a picture of rows, each with its `id`."""
    return Picture({str(row["id"]): encode(row) for row in rows})


def _array(texts: Iterable[str]) -> str:
    return f"[{','.join(texts)}]"


def _frame(event: str, text: str) -> bytes:
    return f"event: {event}\ndata: {text}\n\n".encode()


_by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Board] = WeakKeyDictionary()


def board() -> Board:
    """Return the board of the running event loop."""
    return _by_loop.setdefault(asyncio.get_running_loop(), Board())


class StreamEndpoint(Endpoint):
    """An endpoint that streams what its `topic` says.

    Under WSGI, where a stream would hold a thread, it answers with the snapshot alone; a browser
    comes back for the next one.
    """

    is_stream = True

    def topic(self, **kwargs: Any) -> Topic:
        """Return what the client reads about; raises what its lookups raise."""
        raise NotImplementedError

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Refuse one stream too many before anything is read."""
        super().initial(request, *args, **kwargs)
        held.check(key_of(request).pk)

    def stream(self, **kwargs: Any) -> Response:
        """Return the beginning of the stream; the frame turns it into one."""
        response = Response(None)
        response.stream = self.topic(**kwargs), key_of(self.request).pk  # type: ignore[attr-defined]
        return response

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        """Return an async view around the usual one."""
        inner = super().as_view(**initkwargs)

        async def view(request: HttpRequest, **kwargs: Any) -> Any:
            response = await in_thread(_begun)(inner, request, kwargs)
            begun = getattr(response, "stream", None)
            if begun is None:
                return response
            topic, key_id = begun
            picture = _there(await board().picture(topic))
            frames = board().read(topic, key_id, picture)
            return _headed(StreamingHttpResponse(frames, content_type=MEDIA_TYPE))

        def once(request: HttpRequest, **kwargs: Any) -> Any:
            response = _begun(inner, request, kwargs)
            begun = getattr(response, "stream", None)
            if begun is None:
                return response
            return _headed(HttpResponse(_there(_first(begun[0])).frame, content_type=MEDIA_TYPE))

        # What DRF's own view carries: the schema generator finds the class by it.
        view.cls = cls  # type: ignore[attr-defined]
        view.initkwargs = initkwargs  # type: ignore[attr-defined]
        view.csrf_exempt = True  # type: ignore[attr-defined]
        view.once = once  # type: ignore[attr-defined]
        return view

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Leave a stream as it is: it has no tag."""
        if hasattr(response, "stream"):
            return response
        return super().finalize_response(request, response, *args, **kwargs)


def _begun(inner: Callable[..., Any], request: HttpRequest, kwargs: dict[str, Any]) -> Any:
    response = inner(request, **kwargs)
    return response if hasattr(response, "stream") else response.render()


def _there(picture: Picture | None) -> Picture:
    if picture is None:
        raise Http404("It is no more.")
    return picture


def _headed(response: Any) -> Any:
    response["Cache-Control"] = "no-store"
    # nginx would collect the events before it passes them on.
    response["X-Accel-Buffering"] = "no"
    return response
