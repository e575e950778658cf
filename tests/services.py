"""Pytest plugin: PostgreSQL and Valkey for the session, before Django's settings are read."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

_SHOWS_ONLY = {"-h", "--help", "--version", "-V", "--markers", "--fixtures"}


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> Iterator[None]:
    """Name the session's own services in the environment that the settings will read.

    A wrapper, because pytest-django reads the settings in this same hook.
    """
    # With xdist, each worker has services of its own; the process that hands out tests has none.
    parallel = getattr(early_config.known_args_namespace, "numprocesses", None)
    hands_out = parallel and "PYTEST_XDIST_WORKER" not in os.environ
    if not hands_out and not _SHOWS_ONLY & set(args):
        stack = ExitStack()
        early_config.add_cleanup(stack.close)
        _start(stack)
    yield


def _start(stack: ExitStack) -> None:
    from opscore.config import Config
    from opscore.embedded import Services

    database, broker = _external("DATABASE"), _external("BROKER")
    # Other variables of an operator must not change what the tests see.
    for name in [name for name in os.environ if name.startswith("OPSCORE_")]:
        if not name.startswith("OPSCORE_TEST_"):
            del os.environ[name]
    var_dir = Path(tempfile.mkdtemp(prefix="opscore-tests-"))
    # PostgreSQL runs as another account when the tests run as root.
    var_dir.chmod(0o711)
    stack.callback(shutil.rmtree, var_dir, ignore_errors=True)
    config = Config(var_dir=var_dir, database_url=database, broker_url=broker)
    services = stack.enter_context(Services(config))
    os.environ.update(services.environment(), OPSCORE_SECRET_KEY="only-for-tests")


def _external(name: str) -> str:
    """Return the URL that replaces an embedded service; '' starts one."""
    url = f"OPSCORE_{name}_URL"
    return os.environ.get(url.replace("_", "_TEST_", 1)) or os.environ.get(url, "")
