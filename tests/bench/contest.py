"""Ops-Core beside raw Celery, in one run and by turns: make bench.

Writes `var/bench.json` and prints a table. `--only w1,w3`, `--repeats 5`, `--quick` for a look.
"""

from __future__ import annotations

import argparse
import json
import platform as machine
import statistics
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

from opscore.config import ROOT
from tests.bench.contest_celery import RawCelery
from tests.bench.shapes import DAG60, VARIED_MS, critical_path_s

OUT = ROOT / "var" / "bench.json"
_SLEEP_MS = [100] * len(DAG60)


@dataclass(frozen=True)
class Workload:
    """One thing that is measured of both."""

    title: str
    unit: str
    better: str
    measure: Callable[[Any, Path], float | None]
    warm_up: Callable[[Any], Any] | None = None


WORKLOADS: Mapping[str, Workload] = {
    "w1": Workload(
        "2,000 tasks, submitted one by one", "tasks/s", "more",
        lambda side, _: side.w1(2000), lambda side: side.w1(100),
    ),
    "w1_bulk": Workload(
        "10,000 tasks in bulk", "tasks/s", "more",
        lambda side, _: side.w1_bulk(10_000), lambda side: side.w1_bulk(100),
    ),
    "w2": Workload(
        "submit to start, p50 of 50", "ms", "less",
        lambda side, _: statistics.median(side.w2(50)), lambda side: side.w2(3),
    ),
    "w3": Workload(
        "a step of a chain of 40", "ms", "less",
        lambda side, _: side.w3(40), lambda side: side.w3(5),
    ),
    "w4": Workload(
        "1 -> 100 -> 1", "s", "less", lambda side, _: side.w4(100), lambda side: side.w4(5)
    ),
    "w5": Workload(
        "irregular graph of 60 that does nothing", "s", "less",
        lambda side, _: side.w5(None), lambda side: side.w5(None),
    ),
    "w5_sleep": Workload(
        "the same, 100 ms each, to the critical path", "x", "less",
        lambda side, _: side.w5(_SLEEP_MS) / critical_path_s(DAG60, _SLEEP_MS),
    ),
    "w5_varied": Workload(
        "the same, 10 to 400 ms each, to the critical path", "x", "less",
        lambda side, _: side.w5(VARIED_MS) / critical_path_s(DAG60, VARIED_MS),
    ),
    "w6": Workload(
        "100 runs of eight tasks at once", "runs/s", "more",
        lambda side, _: side.w6(100), lambda side: side.w6(4),
    ),
    "w7": Workload("private memory of a worker", "MiB", "less", lambda side, _: side.w7()),
    "w8": Workload(
        "SIGKILL of the worker to the next step", "s", "less", lambda side, log: side.w8(log)
    ),
}  # fmt: skip


def main() -> None:
    """Start services and both sides, measure by turns, write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(WORKLOADS))
    parser.add_argument("--repeats", type=int, default=3)
    said = parser.parse_args()
    from tests.bench.platform import platform

    with platform() as folder:
        from django.conf import settings

        from tests.bench.contest_ours import Ours

        broker = settings.CELERY_BROKER_URL
        results = settings.CELERY_RESULT_BACKEND or broker
        raw = RawCelery(folder, _other(broker, 5), _other(results, 6))
        with raw, Ours(folder) as ours:
            found = {
                name: _measured(name, {"celery": raw, "ours": ours}, said.repeats, folder)
                for name in said.only.split(",")
            }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps({**_machine(), **found}, indent=1) + "\n")


def _measured(name: str, sides: Mapping[str, Any], repeats: int, folder: Path) -> dict[str, Any]:
    work = WORKLOADS[name]
    figures: dict[str, list[float | None]] = {side: [] for side in sides}
    logs = count()
    for side in sides.values():
        if work.warm_up:
            work.warm_up(side)
    for _ in range(repeats):
        for title, side in sides.items():
            figures[title].append(work.measure(side, folder / f"{name}-{next(logs)}"))
    row: dict[str, Any] = {"unit": work.unit, "better": work.better}
    row |= {side: _spread(values) for side, values in figures.items()}
    with suppress(TypeError):  # one of them never came to an end
        row["ratio"] = round(row["ours"]["median"] / row["celery"]["median"], 3)
    print(_line(name, work, row), flush=True)
    return row


def _spread(values: list[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    shown = {"median": statistics.median(known), "min": min(known), "max": max(known)}
    return {word: round(value, 5) for word, value in shown.items()}


def _line(name: str, work: Workload, row: Mapping[str, Any]) -> str:
    cells = [
        "never" if row[side] is None
        else f"{row[side]['median']:.4g} ({row[side]['min']:.4g} to {row[side]['max']:.4g})"
        for side in ("ours", "celery")
    ]  # fmt: skip
    return f"| {name} | {work.title}, {work.unit} | {' | '.join(cells)} | {row.get('ratio', '')} |"


def _other(url: str, number: int) -> str:
    """Return the URL of another database of a Redis; of RabbitMQ the same."""
    return url if url.startswith("amqp") else f"{url.rpartition('/')[0]}/{number}"


def _machine() -> dict[str, Any]:
    packages = ("celery", "redis", "psycopg", "Django")
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{machine.machine()}, {machine.system()} {machine.release()}",
        "python": machine.python_version(),
        "versions": {name: version(name) for name in packages},
    }


if __name__ == "__main__":
    main()
