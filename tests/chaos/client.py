"""Submits runs at a steady rate, half over HTTP and half in Python: python -m tests.chaos.client SEED RATE FILE WORKFLOW….

Writes the label of each submission that was acknowledged to FILE. After SIGUSR1 it dies between
the commit of its next submission and the sending of its hints.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from random import Random
from types import FrameType
from typing import Any
from uuid import uuid4

import django
import httpx

_THREADS = 8
_GIVE_UP_S = 30.0


class Client:
    """One life of a submitting client."""

    def __init__(self, seed: int, rate: float, answers: str, workflows: list[str]) -> None:
        self._rng = Random(seed)
        self._every_s = 1 / rate
        self._workflows = workflows
        self._answers = os.open(answers, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._lock = threading.Lock()
        self._due = time.monotonic()
        self._number = 0
        self.doomed = False

    def run(self) -> None:
        """Submit until the process ends."""
        threads = [threading.Thread(target=self._submit_on, daemon=True) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _submit_on(self) -> None:
        while True:
            number, workflow, due = self._ticket()
            time.sleep(max(0.0, due - time.monotonic()))
            submit = self._in_python if number % 2 or self.doomed else self._over_http
            try:
                submit(workflow, str(uuid4()))
            except Exception as error:  # noqa: BLE001 - not acknowledged, so nothing was promised
                print(f"{submit.__name__}: {type(error).__name__}: {error}", file=sys.stderr)

    def _ticket(self) -> tuple[int, str, float]:
        from tests.chaos import graphs

        with self._lock:
            self._number += 1
            self._due += self._every_s
            return self._number, graphs.choose(self._rng, self._workflows), self._due

    def _over_http(self, workflow: str, label: str) -> None:
        """Send until it is answered: the key makes that one submission."""
        give_up_at = time.monotonic() + _GIVE_UP_S
        while time.monotonic() < give_up_at:
            if self._posted(workflow, label):
                self._acknowledged(label)
                return
            time.sleep(0.3)

    def _posted(self, workflow: str, label: str) -> bool:
        try:
            answer = httpx.post(
                f"{os.environ['CHAOS_URL']}/api/v1/workflows/{workflow}/execute",
                json={"inputs": {"label": label}},
                headers={
                    "Authorization": f"Bearer {os.environ['CHAOS_KEY']}",
                    "Idempotency-Key": label,
                },
                timeout=5,
            )
        except httpx.TransportError:
            return False
        if answer.status_code >= 500 and answer.status_code != 503:
            print(f"HTTP {answer.status_code}: {answer.text}", file=sys.stderr)
        return answer.is_success

    def _in_python(self, workflow: str, label: str) -> None:
        from django.db import close_old_connections, transaction

        from opscore.models import Project
        from workflows import registry

        try:
            with transaction.atomic():
                if self.doomed:
                    # Called before the hints are sent: hooks run in the order of their making.
                    transaction.on_commit(lambda: self._die(label))
                project = Project.objects.get(slug="default")
                registry.execute(project, workflow, inputs={"label": label})
            self._acknowledged(label)
        finally:
            close_old_connections()

    def _acknowledged(self, label: str) -> None:
        os.write(self._answers, f"{label}\n".encode())

    def _die(self, label: str) -> None:
        self._acknowledged(label)
        os._exit(1)


def main(arguments: list[str]) -> None:
    """Run one client."""
    django.setup()
    client = Client(int(arguments[0]), float(arguments[1]), arguments[2], arguments[3:])

    def doom(number: int, frame: FrameType | None) -> Any:
        client.doomed = True

    signal.signal(signal.SIGUSR1, doom)
    client.run()


if __name__ == "__main__":
    main(sys.argv[1:])
