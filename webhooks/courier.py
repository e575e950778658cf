"""The courier: sends what is due, many at once, none of them waiting for another."""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial

import httpx

from agents import addresses, dialling
from agents.lookups import Lookups
from opscore.api.threads import in_thread
from opscore.config import load_config
from opscore.errors import OpsCoreError
from opscore.logs import get_logger
from webhooks import outbox
from webhooks.outbox import Answer, Letter

log = get_logger(__name__)

#: The longest time between two looks at the database.
TICK_S = 0.5
#: Requests of this process at once.
AT_ONCE = 400
#: How long a receiver may take, from its name to its answer; then, how long the answer is read.
TIMEOUT_S = 15.0
READ_S = 2.0
#: Characters of an answer that are kept.
EXCERPT = 1000


class Courier:
    """`await Courier().run()` works until `stop()`. Any number of them share the work."""

    def __init__(self, resolver: addresses.Resolver | None = None) -> None:
        self._lookups = Lookups(resolver)
        self._stopping = asyncio.Event()
        self._look = asyncio.Event()
        self._open: dict[int, asyncio.Task[None]] = {}

    def stop(self) -> None:
        """Take nothing new, finish what is open, then end; a second call does not wait."""
        if self._stopping.is_set():
            for one in self._open.values():
                one.cancel()
        self._stopping.set()
        self._look.set()

    async def run(self) -> None:
        """Send what is due. What the database does not take or give is tried again."""
        while not self._stopping.is_set():
            try:
                await self._take()
            except Exception:
                log.exception("courier.failed")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), TICK_S)
            self._look.clear()
        await self._leave()

    async def _take(self) -> None:
        if (room := AT_ONCE - len(self._open)) > 0:
            for letter in await in_thread(outbox.claim)(room):
                task = asyncio.create_task(self._deliver(letter))
                self._open[letter.id] = task
                task.add_done_callback(partial(self._done, letter.id))

    def _done(self, key: int, _: asyncio.Task[None]) -> None:
        self._open.pop(key, None)
        self._look.set()

    async def _deliver(self, letter: Letter) -> None:
        answer = await self.send(letter)
        write = log.info if answer.error else log.debug
        write(
            "webhook.sent",
            webhook=str(letter.webhook_id),
            delivery=letter.id,
            status=answer.status,
            ms=answer.duration_ms,
            error=answer.error,
        )
        try:
            await in_thread(outbox.record)(letter, answer)
        except Exception:
            # It is sent again when its lease is over: rather twice than never.
            log.exception("courier.not_recorded", delivery=letter.id)

    async def send(self, letter: Letter) -> Answer:
        """Send one request; never raises but when it is cancelled."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await self._ask(letter)
        except TimeoutError:
            answer = Answer(error=f"no answer within {TIMEOUT_S:g} s")
        except (httpx.HTTPError, OpsCoreError, OSError, ValueError) as error:
            answer = Answer(error=dialling.said(error))
        took_ms = round((time.monotonic() - began) * 1000)
        return Answer(answer.status, answer.error, answer.excerpt, took_ms, answer.hold_s)

    async def _ask(self, letter: Letter) -> Answer:
        body, headers = await in_thread(outbox.written)(letter)
        request = dialling.Request("POST", addresses.parse_url(letter.url), body, headers)
        async with (
            dialling.client() as client,
            dialling.Pinned(client, self._lookups, request) as response,
        ):
            return Answer(
                response.status_code,
                _wrong(response.status_code),
                await _beginning(response),
                hold_s=_hold_s(response.headers.get("Retry-After", "")),
            )

    async def _leave(self) -> None:
        left = dict(self._open)
        if left:
            _, late = await asyncio.wait(left.values(), timeout=load_config().drain_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        if broken_off := [key for key, task in left.items() if task.cancelled()]:
            await in_thread(outbox.put_back)(broken_off)


def _wrong(status: int) -> str:
    """Say why a status does not count as delivered; '' for those that do."""
    if 200 <= status < 300:
        return ""
    if 300 <= status < 400:
        return f"HTTP {status}: redirects are not followed"
    return f"HTTP {status}"


def _hold_s(text: str) -> float:
    return float(text) if text.isdigit() and len(text) < 9 else 0.0


async def _beginning(response: httpx.Response) -> str:
    """Return the beginning of an answer; its status is what counts, so this may break off."""
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        return ""  # a few bytes would unpack to as much as their sender likes
    raw = bytearray()
    with contextlib.suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(READ_S):
            async for chunk in response.aiter_raw():
                raw += chunk
                if len(raw) >= EXCERPT:
                    break
    return bytes(raw[:EXCERPT]).decode(errors="replace").replace("\0", "")
