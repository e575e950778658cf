"""Production: what does not start, and that Django's own check finds nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from opscore.config import ROOT, Config
from opscore.production import refusals
from tests.boot.test_settings import manage

SECRET = "v4f-0hQm_9sXz2LkT7bNwE1rYcUoPiAdGjHy5VtC3qRxM8eK6uSnZlBp"
FIT: dict[str, Any] = {
    "env": "production",
    "secret_key": SECRET,
    "allowed_hosts": "ops.example.org",
    "trusted_proxies": "10.0.0.5/32",
    "seal_keys": "any",
}


@pytest.mark.parametrize(
    ("change", "flower", "said"),
    [
        ({"secret_key": ""}, {}, "OPSCORE_SECRET_KEY is empty"),
        ({"secret_key": "short"}, {}, "OPSCORE_SECRET_KEY is too short"),
        ({"secret_key": "a" * 60}, {}, "OPSCORE_SECRET_KEY is too short or too plain"),
        ({"secret_key": "django-insecure-" + SECRET}, {}, "the one of an example"),
        ({"debug": True}, {}, "OPSCORE_DEBUG"),
        ({"allowed_hosts": "*"}, {}, "OPSCORE_ALLOWED_HOSTS allows any"),
        ({"allowed_hosts": ""}, {}, "OPSCORE_ALLOWED_HOSTS allows any"),
        ({"allowed_hosts": "a.org,*.b.org"}, {}, "OPSCORE_ALLOWED_HOSTS allows any"),
        ({"trusted_proxies": ""}, {}, "OPSCORE_TRUSTED_PROXIES is empty"),
        ({"trusted_proxies": "10.0.0.5/32,10.0.0.0/8"}, {}, "any address that comes from 10.0.0.0"),
        ({"trusted_proxies": "0.0.0.0/0"}, {}, "any address that comes from 0.0.0.0/0"),
        ({"trusted_proxies": "2001:db8::/32"}, {}, "any address that comes from 2001:db8::/32"),
        ({"seal_keys": ""}, {}, "OPSCORE_SEAL_KEYS is empty"),
        ({}, {"FLOWER_UNAUTHENTICATED_API": "true"}, "FLOWER_UNAUTHENTICATED_API"),
        ({}, {"FLOWER_BASIC_AUTH": "admin:admin"}, "FLOWER_BASIC_AUTH"),
    ],
)
def test_each_unsafe_setting_is_said(
    change: dict[str, Any], flower: dict[str, str], said: str
) -> None:
    told = refusals(Config(**{**FIT, **change}), flower)
    assert len(told) == 1
    assert said in told[0]
    assert refusals(Config(**{**FIT, **change, "env": "development"}), flower) == []


def test_fit_settings_are_not_refused() -> None:
    assert refusals(Config(**FIT), {"FLOWER_BASIC_AUTH": "admin:correct-horse-battery"}) == []


def test_all_are_said_at_once_and_nothing_starts(var_dir: Path) -> None:
    done = manage("check", VAR_DIR=str(var_dir), ENV="production", DEBUG="1", SECRET_KEY="hush")
    assert done.returncode == 1
    assert done.stderr.count("OPSCORE_") == 6
    assert "hush" not in done.stderr
    assert "Traceback" not in done.stderr


MANAGE, PYTHON = "manage.py", "-m"
WEB = ("granian", "--interface", "asgi", "--port", "0", "opscore.asgi:application")
CELERY = ("celery", "-A", "opscore")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "changed", "said"),
    [
        ((PYTHON, *WEB), {"OPSCORE_SECRET_KEY": ""}, "OPSCORE_SECRET_KEY is empty"),
        ((PYTHON, *WEB), {"OPSCORE_DEBUG": "1"}, "OPSCORE_DEBUG"),
        ((PYTHON, *CELERY, "worker"), {"OPSCORE_SECRET_KEY": "hush"}, "too short"),
        ((PYTHON, *CELERY, "beat"), {"OPSCORE_ALLOWED_HOSTS": "*"}, "OPSCORE_ALLOWED_HOSTS"),
        ((PYTHON, *CELERY, "flower"), {}, "use manage.py flower"),
        ((PYTHON, *CELERY, "worker"), {"FLOWER_UNAUTHENTICATED_API": "1"}, "opens Flower"),
        ((MANAGE, "flower"), {}, "Set FLOWER_BASIC_AUTH"),
        ((MANAGE, "flower"), {"FLOWER_BASIC_AUTH": "admin:admin"}, "at least 12 characters"),
        ((MANAGE, "up", "--port", "0"), {"OPSCORE_DEBUG": "1"}, "OPSCORE_DEBUG"),
        ((MANAGE, "supervise"), {"OPSCORE_SECRET_KEY": "a" * 60}, "too plain"),
        ((MANAGE, "push"), {"OPSCORE_SECRET_KEY": "django-insecure-" + SECRET}, "an example"),
    ],
)
def test_no_part_starts_with_what_is_not_fit(
    var_dir: Path, command: tuple[str, ...], changed: dict[str, str], said: str
) -> None:
    clean = {name: word for name, word in os.environ.items() if not name.startswith("OPSCORE_")}
    fit = {f"OPSCORE_{name.upper()}": str(value) for name, value in FIT.items()}
    nowhere = {
        "OPSCORE_VAR_DIR": str(var_dir),
        "OPSCORE_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "OPSCORE_BROKER_URL": "redis://127.0.0.1:1/0",
    }
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**clean, **fit, **nowhere, **changed},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert said in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert not (var_dir / "secret_key").exists()


def test_the_deployment_check_finds_nothing(var_dir: Path) -> None:
    done = manage(
        "check",
        "--deploy",
        "--fail-level",
        "WARNING",
        VAR_DIR=str(var_dir),
        ENV="production",
        SECRET_KEY=SECRET,
        ALLOWED_HOSTS="ops.example.org",
        TRUSTED_PROXIES="10.0.0.5/32",
        SEAL_KEYS="any",
        DATABASE_URL="postgresql://nobody@127.0.0.1:1/none",
    )
    assert done.returncode == 0, done.stderr
    assert "no issues (0 silenced)" in done.stdout
