"""A real web server in a process of its own, for tests that need one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from opscore.models import Project


@dataclass
class Server:
    """A web server in a process of its own, and a key for it."""

    url: str
    key: str

    def client(self, **options: Any) -> httpx.Client:
        """Return a client with the key."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20, **options)


@pytest.fixture(scope="session")
def server_url(django_db_setup: None) -> Iterator[str]:
    """The address of a granian with one worker on the tests' database."""
    with web_server(free_port()) as (url, _):
        yield url


@contextmanager
def web_server(port: int, **settings: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a granian of one worker on the tests' database while the block lasts."""
    command = [
        sys.executable,
        "-m",
        "granian",
        "--interface",
        "asgi",
        "--no-ws",
        "--port",
        str(port),
    ]
    process = subprocess.Popen(
        [*command, "opscore.asgi:application"],
        env={**os.environ, **settings},
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url, process)
        yield url, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@pytest.fixture
def server(server_url: str, transactional_db: None, project: Project) -> Server:
    """The web server, with a key that may do everything; rows are really committed."""
    from opscore import keys

    _, text = keys.create(project, "live", ["admin"])
    return Server(server_url, text)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    give_up_at = time.monotonic() + 90
    while time.monotonic() < give_up_at:
        assert process.poll() is None, "the web server ended"
        try:
            httpx.get(f"{url}/health", timeout=2)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("the web server does not answer")
