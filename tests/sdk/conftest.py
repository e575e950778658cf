"""A live platform for the SDK and its command, with an agent that does tasks over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import UUID

import httpx
import pytest
from django.db import connections

from agents import runtime
from opscore_sdk import Client
from opscore_sdk.testing import MemoryPlatform
from tasks.execution import execute
from tasks.models import Task
from tests.live_server import Server, server, server_url
from tests.sdk.places import Place, in_memory, live

__all__ = ["server", "server_url"]


@pytest.fixture(
    params=[pytest.param("live", marks=pytest.mark.django_db(transaction=True)), "memory"]
)
def place(request: pytest.FixtureRequest) -> Place:
    """The live platform, then the one in memory: both must pass the same tests."""
    if request.param == "memory":
        return in_memory(MemoryPlatform())
    return live(request.getfixturevalue("server"))


@pytest.fixture
def api(place: Place) -> Iterator[Client]:
    """A blocking client of that place."""
    with place.client() as client:
        yield client


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """The SDK's client with a key that may do everything."""
    with Client(server.url, server.key) as client:
        yield client


@pytest.fixture
def opscore(server: Server, tmp_path: Path) -> Command:
    """Run the `opscore` command in an empty folder: `opscore("run", "x.yaml")`."""

    return lambda *arguments, **environ: _run(
        server.url, server.key, tmp_path, *arguments, **environ
    )


def _run(
    url: str, key: str, folder: Path, *arguments: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    env = {
        name: value
        for name, value in os.environ.items()
        if name in {"PATH", "HOME", "LANG"} or name.startswith("COV")
    }
    env["PYTHONPATH"] = str(Path(__file__).parents[2])
    env |= {"OPSCORE_API_URL": url, "OPSCORE_API_KEY": key, "COLUMNS": "40"} | environ
    return subprocess.run(
        [sys.executable, "-m", "opscore_sdk", *arguments],
        env={name: value for name, value in env.items() if value},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def worker(server: Server) -> Iterator[None]:
    """An agent `adder` that adds the numbers in its inputs, or fails when told so."""
    stop = Event()
    with server.client() as http:
        body = {"name": "adder", "kind": "remote", "capabilities": ["add"]}
        http.post("/agents", json=body).raise_for_status()
        session = http.post("/agents/adder/sessions", json={}).json()["session_id"]
        thread = Thread(target=_work, args=(http, session, stop))
        thread.start()
        yield
        stop.set()
        thread.join(20)


def _work(http: httpx.Client, session: str, stop: Event) -> None:
    try:
        _serve(http, session, stop)
    finally:
        runtime.begin(None)
        connections.close_all()


def _serve(http: httpx.Client, session: str, stop: Event) -> None:
    # What a worker of the platform's own queue does: it evaluates the outputs of workflows.
    runtime.begin(runtime.Life(UUID(session), "adder", {}))
    while not stop.is_set():
        for end in Task.objects.filter(uses="end", status="queued"):
            execute(end.pk, end.attempt, frozenset())
        answer = http.post(f"/sessions/{session}/claim", json={"wait_s": 0.3})
        for task in answer.json()["tasks"]:
            http.post(f"/tasks/{task['id']}/report", json=_report(task)).raise_for_status()


def _report(task: dict[str, Any]) -> dict[str, Any]:
    inputs = task["inputs"]
    if inputs.get("fail"):
        error = {"type": "oops", "message": "cannot add that", "retryable": False}
        return {"fence": task["fence"], "status": "failed", "error": error}
    total = sum(value for value in inputs.values() if isinstance(value, int))
    return {"fence": task["fence"], "status": "completed", "result": total}


class Stub:
    """A server that answers what a test says and takes note of what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[int, Any, dict[str, str]]]] = {}
        self.asked: list[tuple[str, Any]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                place = f"{self.command} {self.path.removeprefix('/api/v1')}"
                stub.asked.append((place, body))
                status, answer, headers = stub._next(place)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - names of the base class

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def on(self, place: str, answer: Any, status: int = 200, **headers: str) -> None:
        """Give this answer there, after those given before; the last one is given for ever."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers.setdefault(place, []).append((status, answer, named))

    def bodies(self, place: str) -> list[Any]:
        """Return the JSON bodies that were sent there."""
        return [json.loads(body) for asked, body in self.asked if asked == place]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _next(self, place: str) -> tuple[int, Any, dict[str, str]]:
        left = self.answers.get(place) or [(404, {"detail": f"nothing at {place}"}, {})]
        return left.pop(0) if len(left) > 1 else left[0]


@pytest.fixture
def stub() -> Iterator[Stub]:
    """A server for endpoints whose platform side is tested elsewhere."""
    stub = Stub()
    yield stub
    stub.close()


@pytest.fixture
def asking(stub: Stub, tmp_path: Path) -> Command:
    """Run the `opscore` command against the stub."""
    return lambda *arguments, **environ: _run(stub.url, "k", tmp_path, *arguments, **environ)


@pytest.fixture
def hasty() -> MemoryPlatform:
    """A platform whose heartbeats are due three times a second."""
    return MemoryPlatform(session_ttl_s=1)
