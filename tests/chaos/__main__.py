"""Chaos: make chaos SECONDS=60 SEED=1 [BROKER=redis|rabbitmq] [JOIN=…] [BREAK=…].

The last line of output is JSON; the exit status is 1 when an invariant was violated.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos import rig
from tests.chaos.faults import FAULTS
from tests.chaos.graphs import WORKFLOWS
from tests.chaos.sabotage import BREAKS
from tests.chaos.trial import Trial


def main() -> int:
    """Run one trial; what it leaves behind is kept only when something was wrong."""
    wanted = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="opscore-chaos-"))
    # PostgreSQL runs as another account when this runs as root.
    folder.chmod(0o711)
    settings = {"join": wanted.join} if wanted.join else {}
    broker = rig.broker_named(wanted.broker)
    with rig.start(folder, broker=broker, sabotage=wanted.sabotage, **settings) as platform:
        verdict = Trial(platform, wanted).run()
    if verdict.good:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"Its logs are in {folder / 'log'}.")
    print(verdict.line(wanted), flush=True)
    return int(not verdict.good)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--broker", choices=["redis", "rabbitmq"], default="redis")
    parser.add_argument("--join", choices=["chord", "database", ""], default="")
    parser.add_argument("--break", dest="sabotage", choices=[*BREAKS, ""], default="")
    parser.add_argument("--rate", type=float, default=4, help="runs a second")
    parser.add_argument("--every", type=float, default=2, help="seconds from fault to fault")
    parser.add_argument("--drain", type=float, default=60, help="seconds to finish in")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, help="only these")
    parser.add_argument("--workflows", nargs="+", choices=list(WORKFLOWS), default=[*WORKFLOWS])
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
