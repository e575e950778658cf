"""Services of its own for a measurement, and Django set up on them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import django

from opscore.config import Config
from opscore.embedded import Services


@contextmanager
def platform() -> Iterator[Path]:
    """Start services, set Django up, give a folder to write into; delete it all afterwards."""
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
            yield folder
