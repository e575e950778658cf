"""Measures the API beside a running load: python -m tests.bench.api [--rows N] [--seconds S].

A whole platform as `make up` starts it, two worker agents that are given 30 tasks of 20 ms a second, and a
client of 16 connections, each of which sends its next request when it has its answer.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

AGENTS = """
agents:
  worker:
    kind: worker
    capabilities: [part-1]
    handlers: tests.bench.handlers
    replicas: 2
"""


def main() -> None:
    """Start a platform, measure, stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=0, help="finished tasks in the tables")
    parser.add_argument("--seconds", type=float, default=15, help="length of each measurement")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="opscore-bench-") as name:
        folder = Path(name)
        # PostgreSQL runs as another account when this runs as root.
        folder.chmod(0o711)
        (folder / "agents.yaml").write_text(AGENTS)
        os.environ |= {
            "OPSCORE_VAR_DIR": str(folder / "var"),
            "OPSCORE_AGENTS_FILE": str(folder / "agents.yaml"),
            # What is measured is the answer, not its refusal.
            "OPSCORE_RATE_LIMIT": "",
        }
        from opscore.config import Config
        from opscore.platform import Platform

        with Platform(Config(port=0), say=lambda _: None) as platform:
            os.environ.update(platform.environment())
            import django

            django.setup()
            from tests.bench.api_measures import measure

            measure(platform.api_url, platform.api_key, said.rows, said.seconds)


if __name__ == "__main__":
    main()
