"""Settings of platforms of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from opscore.config import Config


@pytest.fixture
def config(var_dir: Path) -> Config:
    """The settings of a platform that runs its own services and takes any port."""
    return Config(var_dir=var_dir, database_url="", broker_url="", port=0)
