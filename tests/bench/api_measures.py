"""What `tests.bench.api` measures; needs Django set up on a running platform's database."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from django.db import connection, transaction
from django.db.models import Model

from opscore.models import Project
from tasks import submission
from tasks.graph import Node
from tasks.models import Run, Task

CONNECTIONS = 16
WAITERS = 200
NOBODY = {"capability": "nobody", "inputs": {"file": "a.py"}}

Ask = Callable[[bytes], Awaitable[tuple[int, bytes]]]


def measure(url: str, key: str, rows: int, seconds: float) -> None:
    """Print one line for each kind of request, without and with waiting clients."""
    if rows:
        _fill(rows)
    with _load(url, key):
        asyncio.run(_measure(_Api(url, key), seconds))


class _Api:
    """Raw requests over connections that stay open: the client must cost next to nothing."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self.key = key

    def request(self, method: str, path: str, body: object = None) -> bytes:
        sent = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} /api/v1{path} HTTP/1.1\r\nHost: {self.host}\r\n"
            f"Authorization: Bearer {self.key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(sent)}\r\n\r\n"
        )
        return head.encode() + sent

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port, limit=2**24)

    async def asker(self) -> Ask:
        reader, writer = await self.connect()

        async def ask(request: bytes) -> tuple[int, bytes]:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            return int(head.split(b" ", 2)[1]), await reader.readexactly(length)

        return ask


async def _measure(api: _Api, seconds: float) -> None:
    ask = await api.asker()
    _, body = await ask(api.request("POST", "/tasks", NOBODY))
    kinds = {
        "GET /tasks/{id}": api.request("GET", f"/tasks/{json.loads(body)['id']}"),
        "GET /tasks?limit=50": api.request("GET", "/tasks?limit=50"),
        "GET /runs?limit=50": api.request("GET", "/runs?limit=50"),
        "POST /tasks": api.request("POST", "/tasks", NOBODY),
    }
    for title, request in kinds.items():
        await _crowd(api, title, request, seconds)
    ask = await api.asker()  # the first one was idle for too long
    bulk = api.request("POST", "/tasks/bulk", {"tasks": [NOBODY] * 1000})
    _print(
        "POST /tasks/bulk of 1,000, one after another", [await _timed(ask, bulk) for _ in range(20)]
    )
    for title, path in (("?wait=30s", "/tasks/{id}?wait=30s"), ("a stream", "/tasks/{id}/stream")):
        waiting = [await api.connect() for _ in range(WAITERS)]
        request = api.request("GET", path.format(id=json.loads(body)["id"]))
        for _, writer in waiting:
            writer.write(request)
        name = f"GET /tasks/{{id}}, {WAITERS} others with {title}"
        await _crowd(api, name, kinds["GET /tasks/{id}"], min(seconds, 20))
        for _, writer in waiting:
            writer.close()


async def _crowd(api: _Api, title: str, request: bytes, seconds: float) -> None:
    times: list[float] = []
    stop_at = time.perf_counter() + seconds

    async def one() -> None:
        ask = await api.asker()
        while time.perf_counter() < stop_at:
            times.append(await _timed(ask, request))

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    _print(f"{title} ({len(times) / seconds:.0f}/s)", times)


async def _timed(ask: Ask, request: bytes) -> float:
    began = time.perf_counter()
    status, body = await ask(request)
    if status >= 300:
        raise RuntimeError(f"{status}: {body[:300]!r}")
    return (time.perf_counter() - began) * 1000


@contextmanager
def _load(url: str, key: str) -> Iterator[None]:
    """Have the agents work in the background."""
    env = {**os.environ, "OPSCORE_API_URL": url, "OPSCORE_API_KEY": key}
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.load"], env=env)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _fill(rows: int) -> None:
    """Write finished tasks on their own, as if one had been submitted every second."""
    began = time.perf_counter()
    [pattern] = submission.submit_tasks(
        Project.objects.get(slug="default"), [submission.Single(Node("task", "nobody"))]
    )
    # In one transaction: ids hold the time, which must be the same for both tables.
    with transaction.atomic(), connection.cursor() as cursor:
        for model, own in ((Run, pattern.run_id), (Task, pattern.id)):
            cursor.execute(_copies(model), {"rows": rows, "pattern": own})
    with connection.cursor() as cursor:
        # What autovacuum would do beside the measurements.
        cursor.execute("VACUUM ANALYZE")
    print(f"{rows} finished tasks written in {time.perf_counter() - began:.0f} s", flush=True)


def _copies(model: type[Model]) -> str:
    """Return the statement that writes finished copies of one row; a run and its task share ids."""
    at = "(now() - %(rows)s * interval '1 s' + n * interval '1 s')"
    own = f"""(lpad(to_hex((extract(epoch FROM {at}) * 1000)::bigint), 12, '0') || '7000a'
              || lpad(to_hex(n), 15, '0'))::uuid"""
    replaced = {"id": own, "run_id": own, "status": "'completed'", "open_sinks": "0", "fence": "1"}
    replaced |= dict.fromkeys(("created_at", "ready_at", "started_at", "completed_at"), at)
    names = [str(field.column) for field in model._meta.concrete_fields]
    shown = ", ".join(replaced.get(name, f't."{name}"') for name in names)
    listed = ", ".join(f'"{name}"' for name in names)
    table = model._meta.db_table
    return f"""INSERT INTO {table} ({listed}) SELECT {shown}
                 FROM {table} t, generate_series(1, %(rows)s) n
                WHERE t.id = %(pattern)s"""


def _print(title: str, times: list[float]) -> None:
    ordered = sorted(times)
    at = {share: ordered[max(int(len(ordered) * share) - 1, 0)] for share in (0.95, 0.99)}
    print(
        f"{title}, ms: p50 {statistics.median(ordered):.1f}, p95 {at[0.95]:.1f}, "
        f"p99 {at[0.99]:.1f}, worst {ordered[-1]:.1f}",
        flush=True,
    )
