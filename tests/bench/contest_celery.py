"""Raw Celery in the contest: two processes of eight threads, results kept, nothing durable."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
from celery import chain, group

from opscore.config import ROOT
from tests.bench.measures import wait_until
from tests.bench.shapes import DAG8, DAG60, Needs, levels

PROCESSES, THREADS = 2, 8
_PATIENCE_S = 120


class RawCelery:
    """The same workloads as `tests.bench.contest_ours.Ours`, each returning its figure."""

    def __init__(self, folder: Path, broker: str, results: str) -> None:
        self._folder = folder
        self._workers: list[subprocess.Popen[bytes]] = []
        os.environ |= {"CONTEST_BROKER": broker, "CONTEST_RESULTS": results}
        from tests.bench import contest_app

        self.app, self.work, self.join = contest_app.app, contest_app.work, contest_app.join

    def __enter__(self) -> RawCelery:
        for number in range(PROCESSES):
            self._start(number)
        wait_until(lambda: len(self.app.control.ping(timeout=1)) >= PROCESSES, 60)
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.send_signal(signal.SIGTERM)
        for worker in self._workers:
            worker.wait(30)

    def _start(self, number: int) -> None:
        name = f"raw{number}-{time.time_ns()}@%h"
        pool = ["--pool", "threads", "--concurrency", str(THREADS)]
        command = ["-m", "celery", "-A", "tests.bench.contest_app", "worker", *pool, "-n", name]
        with (self._folder / "raw.log").open("ab") as log:
            self._workers.append(
                subprocess.Popen(
                    [sys.executable, *command, "-l", "ERROR"], cwd=ROOT, stdout=log, stderr=log
                )
            )

    # ---------------------------------------------------------------- workloads
    def w1(self, count: int) -> float:
        """Return tasks a second, sent one by one."""
        return self._rate(count, lambda: [self.work.delay() for _ in range(count)])

    def w1_bulk(self, count: int) -> float:
        """Return tasks a second, sent as one group."""
        return self._rate(count, lambda: [group(self.work.s() for _ in range(count))()])

    def _rate(self, count: int, send: Callable[[], Sequence[Any]]) -> float:
        began = time.perf_counter()
        for sent in send():
            sent.get(timeout=_PATIENCE_S)
        return count / (time.perf_counter() - began)

    def w2(self, count: int) -> list[float]:
        """Return ms from the call to the start of the work, on an idle system."""
        found = []
        for _ in range(count):
            time.sleep(0.05)
            began = time.time()
            found.append((self.work.delay().get(timeout=_PATIENCE_S) - began) * 1000)
        return found

    def w3(self, length: int) -> float:
        """Return ms a step of a chain."""
        return self._took(chain(*[self.work.si() for _ in range(length)])) * 1000 / length

    def w4(self, width: int) -> float:
        """Return seconds of 1 -> width -> 1."""
        many = group(self.work.si() for _ in range(width))
        return self._took(chain(self.work.si(), many, self.join.s()))

    def w5(self, took_ms: Sequence[int] | None) -> float:
        """Return seconds of the irregular graph, with a barrier between its levels."""
        return self._took(self._canvas(DAG60, took_ms))

    def w6(self, runs: int) -> float:
        """Return runs a second of the graph of eight, all at once."""
        began = time.perf_counter()
        for sent in [self._canvas(DAG8, None)() for _ in range(runs)]:
            sent.get(timeout=_PATIENCE_S)
        return runs / (time.perf_counter() - began)

    def w7(self) -> float:
        """Return MiB of private memory of one worker that is idle."""
        return psutil.Process(self._workers[0].pid).memory_full_info().uss / 2**20

    def w8(self, log: Path) -> float | None:
        """Return seconds from SIGKILL of the only worker to the next step; None: never."""
        for spare in self._workers[1:]:
            spare.send_signal(signal.SIGTERM)
            spare.wait(30)
        del self._workers[1:]
        chain(*[self.work.si(100, str(log)) for _ in range(40)])()
        wait_until(lambda: steps(log) >= 15, 60)
        self._workers.pop().kill()
        killed, seen = time.time(), steps(log)
        self._start(9)
        try:
            wait_until(lambda: steps(log) > seen, 20)
        except TimeoutError:
            return None
        return float(log.read_text().splitlines()[seen]) - killed

    def _took(self, canvas: Any) -> float:
        began = time.perf_counter()
        canvas().get(timeout=_PATIENCE_S)
        return time.perf_counter() - began

    def _canvas(self, needs: Needs, took_ms: Sequence[int] | None) -> Any:
        parts: list[Any] = []
        for level in levels(needs):
            tasks = [self.work.si(took_ms[node] if took_ms else 0) for node in level]
            parts += [tasks[0]] if len(tasks) == 1 else [group(tasks), self.join.s()]
        return chain(*parts)


def steps(log: Path) -> int:
    """Return how many steps have logged themselves."""
    return log.read_text().count("\n") if log.exists() else 0
