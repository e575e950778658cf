"""Measures the engine and the agents on embedded services: make bench.

Prints medians of five; the times of runs are the database's own (created_at to completed_at).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import django

from opscore.config import Config
from opscore.embedded import Services


def main() -> None:
    """Start services and two agents, measure, stop everything."""
    with tempfile.TemporaryDirectory(prefix="opscore-bench-") as name:
        folder = Path(name)
        # PostgreSQL runs as another account when this runs as root.
        folder.chmod(0o711)
        with Services(Config(var_dir=folder / "services")) as services:
            os.environ.update(services.environment(), OPSCORE_SECRET_KEY="only-for-benchmarks")
            os.environ |= {
                "OPSCORE_LOG_LEVEL": "ERROR",
                "DJANGO_SETTINGS_MODULE": "opscore.settings",
            }
            django.setup()
            from tests.bench.measures import measure

            measure(folder)


if __name__ == "__main__":
    main()
