"""What a support person would ask for, of the ground floor; the floors above add their own.

A check is a function of a project that yields findings. What a finding says goes to people, so it
names no secret, no address of a service and no account.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from opscore.api.health import present_health
from opscore.config import Config, load_config
from opscore.database import database_now, query
from opscore.logs import get_logger
from opscore.models import AuditEntry, Project, Secret, Sign
from opscore.production import refusals
from opscore.sealing import SealedError, unseal

log = get_logger(__name__)

STATUSES = ("ok", "warn", "fail")
#: Things of one kind that are named; the others are counted.
SHOWN = 10
#: Beat says that it is alive every ten seconds.
_BEAT_SILENT = timedelta(seconds=60)
_CLOCKS_S = 5.0
_AUDIT_LATE = timedelta(minutes=2)
_LEAST_FREE = 1024**3
_LEAST_SHARE = 0.05
_CONNECTIONS = 0.8
_LOOPBACK = ("127.", "localhost", "::1")

_SERVER = """
SELECT current_setting('server_version') AS version, pg_database_size(current_database()) AS bytes,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used,
       current_setting('max_connections')::int AS most"""


@dataclass(frozen=True)
class Finding:
    """What was found about one part."""

    part: str
    status: str
    message: str
    advice: str = ""
    """What to do; '' where nothing needs to be done."""


Check = Callable[[Project], Iterator[Finding]]


def findings(checks: Sequence[Check], project: Project) -> list[Finding]:
    """Make all checks; one that breaks is a finding itself."""
    return [finding for check in checks for finding in _guarded(check, project)]


def _guarded(check: Check, project: Project) -> list[Finding]:
    try:
        return list(check(project))
    except Exception as error:
        log.exception("diagnosis.broke", check=check.__name__)
        message = f"this could not be checked: {type(error).__name__}"
        return [Finding(check.__name__, "fail", message, "look into the log of the web server")]


def services(_: Project) -> Iterator[Finding]:
    """Say whether database and broker answer."""
    health = present_health()
    for name, part in health["components"].items():
        if part["status"] == "ok":
            yield Finding(name, "ok", f"answers in {part['ms']:g} ms{_more(name)}")
        else:
            variable = f"OPSCORE_{name.upper()}_URL"
            yield Finding(name, "fail", "does not answer", f"start it, or correct {variable}")


def _more(name: str) -> str:
    if name != "database":
        return ""
    row = query(_SERVER, {})[0]
    return f": PostgreSQL {row['version'].split()[0]}, {size(row['bytes'])}"


def connections(_: Project) -> Iterator[Finding]:
    """Say how many of the database's connections are taken."""
    row = query(_SERVER, {})[0]
    said = f"{row['used']} of {row['most']} are in use"
    if row["used"] < row["most"] * _CONNECTIONS:
        yield Finding("connections", "ok", said)
    else:
        yield Finding("connections", "warn", said, "raise max_connections of PostgreSQL")


def migrations(_: Project) -> Iterator[Finding]:
    """Say whether the tables are those of this version."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if not plan:
        yield Finding("migrations", "ok", "all are applied")
        return
    names = ", ".join(f"{migration.app_label}.{migration.name}" for migration, _ in plan[:SHOWN])
    yield Finding(
        "migrations", "fail", f"{len(plan)} are not applied: {names}", "run manage.py bootstrap"
    )


def clocks(_: Project) -> Iterator[Finding]:
    """Say whether web server and database agree about the time."""
    apart = abs((timezone.now() - database_now()).total_seconds())
    said = f"web server and database differ by {apart:.1f} s"
    if apart < _CLOCKS_S:
        yield Finding("clocks", "ok", said)
    else:
        yield Finding("clocks", "warn", said, "synchronise the clocks of all hosts (NTP)")


def beat(_: Project) -> Iterator[Finding]:
    """Say whether beat ticks, and platform workers do what it asks for."""
    seen_at = Sign.objects.filter(pk=Sign.BEAT).values_list("seen_at", flat=True).first()
    if seen_at is not None and database_now() - seen_at < _BEAT_SILENT:
        yield Finding("beat", "ok", f"was heard of at {seen_at:%H:%M:%S} UTC")
        return
    since = (
        f"since {seen_at:%Y-%m-%d %H:%M:%S} UTC"
        if seen_at
        else "so far (it says so every ten seconds)"
    )
    advice = "start `celery -A opscore beat`, and a supervisor, whose worker does what it asks for"
    message = f"was not heard of {since}; meanwhile supervisors do its work, every five seconds"
    yield Finding("beat", "warn", message, advice)


def secrets(project: Project) -> Iterator[Finding]:
    """Say whether there is a key that reads the project's secrets."""
    names = []
    for secret in Secret.objects.filter(project=project):
        try:
            unseal(bytes(secret.sealed))
        except SealedError:
            names.append(secret.name)
    if names:
        advice = "set OPSCORE_SEAL_KEYS to the keys that they were sealed with, on all hosts"
        yield Finding("secrets", "fail", f"cannot be read here: {listed(names)}", advice)
    elif not load_config().seal_keys.get_secret_value() and load_config().env == "production":
        advice = "set OPSCORE_SEAL_KEYS, the same on all hosts"
        yield Finding(
            "secrets", "warn", "the key that seals them is kept by this host alone", advice
        )
    else:
        yield Finding("secrets", "ok", "there is a key to seal them, and all can be read")


def production(_: Project) -> Iterator[Finding]:
    """Say whether the settings are fit for where the platform is used."""
    config = load_config()
    if config.env == "production":
        yield Finding(
            "settings", "ok", "for production; unsafe ones would have kept it from starting"
        )
    elif config.host.startswith(_LOOPBACK):
        yield Finding("settings", "ok", "for development, on this machine alone")
    else:
        yield Finding(
            "settings", "warn", "for development, and yet it listens to others", _unsafe(config)
        )


def _unsafe(config: Config) -> str:
    strict = config.model_copy(update={"env": "production"})
    return " ".join(["set OPSCORE_ENV=production.", *refusals(strict, {})])


def disk(_: Project) -> Iterator[Finding]:
    """Say how much room there is for logs and, where they are embedded, for the data."""
    folder = load_config().var_dir
    if not folder.exists():
        return
    usage = shutil.disk_usage(folder)
    said = f"{size(usage.free)} of {size(usage.total)} are free for the var folder"
    if usage.free > _LEAST_FREE and usage.free > usage.total * _LEAST_SHARE:
        yield Finding("disk", "ok", said)
    else:
        yield Finding("disk", "warn", said, "make room: without it PostgreSQL stops")


def audit(_: Project) -> Iterator[Finding]:
    """Say whether new rows of the audit log get into its chain."""
    late = AuditEntry.objects.filter(number=None, at__lt=database_now() - _AUDIT_LATE).count()
    if late:
        advice = "beat and a supervisor seal it; then look for opscore.seal_audit in their logs"
        yield Finding("audit log", "warn", f"{late} rows are not in its chain yet", advice)
    else:
        yield Finding("audit log", "ok", "is sealed; `opscore audit verify` follows its chain")


def listed(names: Sequence[str]) -> str:
    """Return some names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def size(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


CHECKS: Sequence[Check] = (services, connections, migrations, clocks, beat)
#: What is asked last.
LATER: Sequence[Check] = (secrets, production, audit, disk)
