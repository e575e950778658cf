"""One chaos run: load and faults for a while, a drain, a verdict."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from random import Random

import psycopg

from tests.chaos import invariants
from tests.chaos.faults import Faults, Storm
from tests.chaos.rig import Rig

_PROGRESS_S = 10.0
_SHOWN = 5


@dataclass(frozen=True)
class Verdict:
    """What was seen. `good`: every figure that must be zero is."""

    runs: int
    nodes: int
    faults: int
    zeros: dict[str, int]
    recoveries: list[float]
    refused: int
    """Reports that came too late, by the agents' own logs."""

    @property
    def good(self) -> bool:
        """Whether nothing was violated, and there was something to violate."""
        return self.runs > 0 and not any(self.zeros.values())

    def line(self, wanted: argparse.Namespace) -> str:
        """Return the verdict as one line of JSON."""
        found = self.recoveries
        return json.dumps(
            {
                "runs": self.runs,
                "nodes": self.nodes,
                "faults": self.faults,
                **self.zeros,
                "recovery_p50_s": round(statistics.median(found), 2) if found else None,
                "recovery_max_s": round(max(found), 2) if found else None,
                "seed": wanted.seed,
                "broker": wanted.broker,
                "join": wanted.join or ("chord" if wanted.broker == "redis" else "database"),
                "seconds": wanted.seconds,
                "refused": self.refused,
                **({"break": wanted.sabotage} if wanted.sabotage else {}),
            }
        )


class Trial:
    """Runs on a platform that is up; main thread only."""

    def __init__(self, rig: Rig, wanted: argparse.Namespace) -> None:
        self.rig = rig
        self.wanted = wanted
        self.answers = rig.config.var_dir / "answered"
        self.faults = Faults(rig, Random(wanted.seed))
        self._began = time.monotonic()
        self._spoke_at = self._began

    def run(self) -> Verdict:
        """Rage, drain, judge."""
        self._say(
            f"chaos for {self.wanted.seconds:g} s, seed {self.wanted.seed}: "
            f"{self.wanted.rate:g} runs/s, a fault every {self.wanted.every:g} s"
        )
        self.answers.touch()
        storm = Storm(
            self.faults, self.wanted.faults or self.faults.names(), self._say, self.wanted.every
        )
        client = ["-m", "tests.chaos.client", str(self.wanted.seed), str(self.wanted.rate)]
        client += [str(self.answers), *self.wanted.workflows]
        part = self.rig.add_part("client", *client)
        storm.start()
        try:
            self.rig.wait(lambda: self._progress(over=False), self.wanted.seconds)
        finally:
            # Also when it is interrupted: what is frozen cannot even be ended.
            storm.calm()
        self.rig.remove_part(part)
        self._drain()
        return self._judge(storm.count)

    def _drain(self) -> None:
        began = time.monotonic()
        done = self.rig.wait(lambda: self._progress(over=True), self.wanted.drain)
        after = time.monotonic() - began
        self._say(f"drained in {after:.1f} s" if done else f"not drained after {after:.0f} s")

    def _judge(self, faults: int) -> Verdict:
        # A database that was stopped last may still be on its way.
        self.rig.wait(lambda: self._count("tasks_run") is not None, 30)
        found = invariants.violations(self.rig.ask, answered=self.answers.read_text().split())
        for name, sentences in found.items():
            for sentence in sentences[:_SHOWN]:
                self._say(f"{name}: {sentence}")
        kills = [{"pid": pid, "at": at.isoformat()} for pid, at in self.faults.kills]
        return Verdict(
            runs=self._count("tasks_run") or 0,
            nodes=self._count("tasks_task") or 0,
            faults=faults,
            zeros={name: len(sentences) for name, sentences in found.items()}
            | {"deadlocks": self._deadlocks()},
            recoveries=invariants.recoveries(self.rig.ask, json.dumps(kills)),
            refused=self._logged("agents/*.log*", "report.refused"),
        )

    def _deadlocks(self) -> int:
        """Count them in the server's log: its statistics are lost with each immediate stop."""
        row = self.rig.ask(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )[0]
        return max(int(row["deadlocks"]), self._logged("postgres.log", "deadlock detected"))

    def _logged(self, files: str, words: str) -> int:
        found = (self.rig.config.var_dir / "log").glob(files)
        return sum(file.read_text(errors="replace").count(words) for file in found)

    def _progress(self, *, over: bool) -> bool:
        if time.monotonic() - self._spoke_at >= _PROGRESS_S:
            self._spoke_at = time.monotonic()
            live = self._count("tasks_run WHERE completed_at IS NULL")
            if live is not None:
                self._say(f"{self._count('tasks_run')} runs, {live} of them live")
        return over and self.rig.quiet()

    def _count(self, rows: str) -> int | None:
        try:
            return int(self.rig.ask(f"SELECT count(*) AS n FROM {rows}")[0]["n"])
        except psycopg.OperationalError:
            return None

    def _say(self, line: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {line}", flush=True)
