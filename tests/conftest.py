"""Fixtures that every ring of tests shares."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.db import connection
from pytest_django.plugin import DjangoDbBlocker

from tests import clean_slate

if TYPE_CHECKING:
    from opscore.models import Project

T = TypeVar("T")


class WaitUntil(Protocol):
    """Call a condition until its answer is true, and return that answer."""

    def __call__(self, condition: Callable[[], T], timeout_s: float = 20.0) -> T: ...


@pytest.fixture(scope="session")
def wait_until() -> WaitUntil:
    """Poll a condition with a deadline: `wait_until(lambda: task_is("completed"), 5)`."""

    def wait(condition: Callable[[], T], timeout_s: float = 20.0) -> T:
        give_up_at = time.monotonic() + timeout_s
        while not (answer := condition()):
            if time.monotonic() > give_up_at:
                pytest.fail(f"not true after {timeout_s:g} s; last answer: {answer!r}")
            time.sleep(0.02)
        return answer

    return wait


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> None:
    """Let processes that a test starts see the tests' database, not the one beside it."""
    parts = urlsplit(os.environ["OPSCORE_DATABASE_URL"])
    name = str(connection.settings_dict["NAME"])
    os.environ["OPSCORE_DATABASE_URL"] = urlunsplit(parts._replace(path=f"/{name}"))
    # The audit log too is emptied between tests.
    connection.settings_dict["OPTIONS"]["options"] = "-c opscore.audit_truncate=on"
    connection.close()
    with django_db_blocker.unblock():
        clean_slate.keep()


@pytest.fixture
def project(db: None) -> Project:
    """The project `default`, also after a test that emptied every table."""
    from agents import breakers, queues, routes, sessions
    from opscore import vault
    from opscore.models import Project

    # This process may remember queues whose rows went with those tables.
    queues.forget()
    sessions.forget()
    breakers.forget()
    routes.forget()
    vault.forget()
    return Project.objects.get_or_create(slug="default")[0]


@pytest.fixture(scope="session")
def rabbitmq_url() -> str:
    """The URL of a RabbitMQ; the test is skipped where there is none, and fails in CI."""
    url = os.environ.get("OPSCORE_TEST_RABBITMQ_URL", "")
    if not url:
        missing = "OPSCORE_TEST_RABBITMQ_URL names no RabbitMQ"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return url


@pytest.fixture
def var_dir() -> Iterator[Path]:
    """A var folder for a platform of its own, which the account of PostgreSQL can reach.

    Not below pytest's folder: that one is closed to others again by each session that starts.
    """
    folder = Path(tempfile.mkdtemp(prefix="opscore-boot-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
