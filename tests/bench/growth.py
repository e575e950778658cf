"""Measures how the database grows per 1,000 tasks: python -m tests.bench.growth.

Chains of ten tasks with small results, executed inside this process, on an embedded PostgreSQL.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import django

from opscore.config import Config
from opscore.embedded import Services


def main() -> None:
    """Start services, measure, stop them."""
    with tempfile.TemporaryDirectory(prefix="opscore-growth-") as name:
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
            from tests.bench.growth_measures import measure

            measure(folder / "archive")


if __name__ == "__main__":
    main()
