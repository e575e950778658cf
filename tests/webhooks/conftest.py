"""Receivers, and a courier inside the test or in a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from opscore.api import threads
from opscore.config import ROOT, load_config
from opscore.models import Event, Project
from tests.webhooks.receiver import Receiver, receiving
from webhooks import hooks
from webhooks.courier import Courier
from webhooks.models import Delivery, Webhook

MakeHook = Callable[..., tuple[Receiver, Webhook]]


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow what the embedded platform allows."""
    monkeypatch.setattr(load_config(), "push_networks", "127.0.0.0/8,::1/128")


@pytest.fixture
def make_hook(project: Project, loopback: None) -> Iterator[MakeHook]:
    """Start receivers and register them: `make_hook("chat", "run.*")`."""
    with ExitStack() as stack:

        def make(name: str, *events: str, **fields: Any) -> tuple[Receiver, Webhook]:
            receiver = stack.enter_context(receiving(Receiver()))
            url = fields.pop("url", receiver.url)
            hook, receiver.secret = hooks.create(
                project, name=name, url=url, events=list(events) or ["*"], **fields
            )
            return receiver, hook

        yield make


@contextmanager
def couriers(count: int = 1, resolver: Any = None) -> Iterator[None]:
    """Run couriers in a thread until the block ends."""
    ready = threading.Event()
    made: list[Courier] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def work() -> None:
        loops.append(asyncio.get_running_loop())
        made.extend(Courier(resolver) for _ in range(count))
        ready.set()
        await asyncio.gather(*(one.run() for one in made))

    thread = threading.Thread(target=asyncio.run, args=[work()])
    thread.start()
    ready.wait()
    try:
        yield
    finally:
        with suppress(RuntimeError):  # it has ended already
            for one in (*made, *made):
                loops[0].call_soon_threadsafe(one.stop)
        thread.join(20)
        _close_connections()


def _close_connections() -> None:
    """Close what the threads keep open: the tests' database is dropped at the end."""
    everyone = threading.Barrier(threads.THREADS)

    def close() -> None:
        everyone.wait(20)
        connections.close_all()

    for closed in [threads._pool.submit(close) for _ in range(threads.THREADS)]:
        closed.result(20)


def due_now() -> None:
    """Let the time to the next tries be over."""
    Delivery.objects.filter(status="pending").update(due_at="2020-01-01T00:00:00Z")


def happen(project: Project, kind: str = "agent.lost", **data: Any) -> Delivery:
    """Let something happen; return what the newest delivery of it is."""
    Event.objects.create(project=project, kind=kind, data=data)
    return Delivery.objects.filter(event=kind).latest("id")


def is_(delivery: Delivery, status: str) -> bool:
    delivery.refresh_from_db()
    return delivery.status == status


class PushProcess:
    """`manage.py push` with the tests' database."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "push.log"
        networks = {"OPSCORE_PUSH_NETWORKS": "127.0.0.0/8", "OPSCORE_DRAIN_S": "2"}
        self._env = {**os.environ, **networks}
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "manage.py"), "push"],
                env=self._env,
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def push_process(transactional_db: None, tmp_path: Path) -> Iterator[PushProcess]:
    process = PushProcess(tmp_path)
    yield process
    process.end()
    print(process.log.read_text()[-6000:])
