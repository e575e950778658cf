"""Short chaos runs, and the same on broken engines, which the same invariants must catch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from opscore.config import ROOT
from tests.chaos.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]
ZEROS = ("lost", "doubled", "out_of_order", "stuck", "deadlocks")
FIGURES = ["runs", "nodes", "faults", *ZEROS, "recovery_p50_s", "recovery_max_s"]


def chaos(*arguments: str) -> tuple[int, dict[str, Any], str]:
    """Return exit status, figures and the whole output of a chaos run."""
    env = {
        name: word
        for name, word in os.environ.items()
        if not name.startswith(("OPSCORE_", "COVERAGE"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *arguments],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.stdout.strip(), said
    return done.returncode, json.loads(done.stdout.splitlines()[-1]), said


def test_nothing_is_lost_doubled_or_out_of_order_in_chaos() -> None:
    status, found, said = chaos("--seconds", "20", "--seed", "11")
    assert {name: found[name] for name in ZEROS} == dict.fromkeys(ZEROS, 0), said
    assert status == 0
    assert list(found)[: len(FIGURES)] == FIGURES
    # How many is the machine's business; that there were some is what makes zeros mean anything.
    assert found["runs"] > 5
    assert found["faults"] > 3


@pytest.mark.rabbitmq
def test_nothing_is_lost_when_rabbitmq_is_killed_purged_and_frozen() -> None:
    if not RabbitMQ.installed():
        pytest.skip("there is no rabbitmq-server on this machine")
    faults = ("agent", "broker_killed", "broker_flushed", "broker_frozen")
    status, found, said = chaos(
        *("--broker", "rabbitmq", "--seconds", "12", "--seed", "2", "--faults", *faults)
    )
    assert {name: found[name] for name in ZEROS} == dict.fromkeys(ZEROS, 0), said
    assert status == 0
    assert found["faults"] > 2


def test_an_engine_without_repairs_is_caught() -> None:
    status, found, said = chaos(
        *("--break", "reconciler", "--seconds", "10", "--drain", "3"),
        *("--workflows", "chain", "fork_join", "--faults", "agent", "broker_flushed"),
    )
    assert status == 1
    assert found["lost"] > 0, said
    assert found["stuck"] > 0, said


def test_an_engine_that_accepts_old_fences_is_caught() -> None:
    status, found, said = chaos(
        *("--break", "fence", "--seconds", "20", "--drain", "1", "--every", "1.5"),
        *("--workflows", "slow", "--rate", "0.6", "--faults", "zombie"),
    )
    assert status == 1
    assert found["doubled"] > 0, said
