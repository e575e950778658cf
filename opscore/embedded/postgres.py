"""The embedded PostgreSQL: durable (fsync on), password-protected, on a loopback port."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import psycopg
from psycopg import sql

from opscore.embedded import children
from opscore.embedded.binaries import postgres_tree
from opscore.embedded.children import ChildError
from opscore.embedded.folders import postgres_home, reachable_tree, server_account
from opscore.embedded.kept import Kept
from opscore.exits import describe

_NAME = "opscore"
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "password_encryption": "scram-sha-256",
    "fsync": "on",
    "log_min_messages": "warning",
    # Two thousand tasks a second fill the default of 1 GB too quickly on a busy laptop.
    "max_wal_size": "2GB",
}
# Backends of a killed server hold its shared memory for a moment; a port may be taken between
# the choice and the start. Both pass.
_PASSING = ("Address already in use", "is still in use", "could not create any TCP/IP sockets")
_PASSING_LIMIT_S = 15.0


class Postgres:
    """One PostgreSQL server on a data folder of its own, child of this process."""

    def __init__(self, var_dir: Path, kept: Kept) -> None:
        self._kept = kept
        self._account = server_account(var_dir)
        self._home = postgres_home(var_dir, self._account)
        self._programs = reachable_tree(postgres_tree(), self._home, self._account) / "bin"
        self._data = self._home / "data"
        self._log = var_dir / "log" / "postgres.log"
        self._child: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """The URL of the platform's own database, with its password."""
        password = self._kept.secret("database_password")
        return f"postgresql://{_NAME}:{password}@127.0.0.1:{self._port}/{_NAME}"

    @property
    def pid(self) -> int:
        """The process id of the server; 0 when it does not run."""
        return self._child.pid if self._child else 0

    def runs(self) -> bool:
        """Tell whether the server's process is alive."""
        return self._child is not None and self._child.poll() is None

    def relaunch(self) -> str:
        """Start a server that died again on its old port, wait for it, and say so."""
        assert self._child is not None  # noqa: S101 - launch() comes first
        end = describe(self._child.returncode)
        self.launch(self._port)
        # Its port is known to everybody: one that is taken now must not be changed.
        children.wait_until_ready(self._child, "PostgreSQL", self._log, self._answers)
        return f"PostgreSQL ended with {end} and was started again"

    def launch(self, port: int = 0) -> None:
        """Start the server without waiting; makes the data folder on first use."""
        if not self._data.exists():
            self._create()
        children.end_orphans(self._data, signal.SIGINT)
        # With no server left on this folder the file can only be stale, whoever has its pid now.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        self._port = port or children.free_port()
        options = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        self._child = children.start(
            [self._programs / "postgres", "-D", self._data, f"--port={self._port}", *options],
            log=self._log,
            cwd=self._data,
            death_signal=signal.SIGINT,
            env=_plain_environment(),
            account=self._account,
        )

    def wait(self) -> None:
        """Wait until it answers, then make the platform's role and database where missing."""
        give_up_at = time.monotonic() + _PASSING_LIMIT_S
        while True:
            try:
                assert self._child is not None  # noqa: S101 - launch() comes first
                children.wait_until_ready(self._child, "PostgreSQL", self._log, self._answers)
                break
            except ChildError as error:
                passing = any(words in str(error) for words in _PASSING)
                if not passing or time.monotonic() > give_up_at:
                    raise
                time.sleep(0.2)
                self.launch()
        self._make_database()

    def stop(self) -> None:
        """Shut down fast and cleanly: open transactions are rolled back."""
        if self._child:
            children.stop(self._child, signal.SIGINT, grace_s=30)
            self._child = None

    def _create(self) -> None:
        """Run initdb into a neighbour folder first, so that a half-made one is never used."""
        unfinished = self._home / "data.unfinished"
        password_file = self._home / "password"
        subprocess.run(["rm", "-rf", str(unfinished)], check=True)  # noqa: S607 - plain rm
        password_file.write_text(self._kept.secret("postgres_password"))
        password_file.chmod(0o600)
        if self._account:
            os.chown(password_file, self._account["user"], self._account["group"])
        try:
            done = subprocess.run(
                [
                    str(self._programs / "initdb"),
                    f"--pgdata={unfinished}",
                    "--username=postgres",
                    f"--pwfile={password_file}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--no-locale",
                    "--no-instructions",
                ],
                cwd=self._home,
                env=_plain_environment(),
                capture_output=True,
                text=True,
                check=False,
                **self._account,
            )
        finally:
            password_file.unlink()
        if done.returncode:
            raise ChildError(f"PostgreSQL's initdb failed:\n{done.stdout}{done.stderr}")
        unfinished.replace(self._data)

    def _admin(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host="127.0.0.1",
            port=self._port,
            user="postgres",
            password=self._kept.secret("postgres_password"),
            dbname="postgres",
            connect_timeout=5,
            autocommit=True,
        )

    def _answers(self) -> bool:
        try:
            self._admin().close()
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise ChildError(
                    f"PostgreSQL in {self._data} has another password than {self._kept.path} "
                    "says. Restore that file, or remove both to start afresh."
                ) from error
            return False
        return True

    def _make_database(self) -> None:
        password = self._kept.secret("database_password")
        with self._admin() as connection:
            role = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [_NAME])
            verb = "ALTER" if role.fetchone() else "CREATE"
            # CREATEDB is for the tests, which make a database of their own.
            connection.execute(
                sql.SQL(verb + " ROLE {} LOGIN CREATEDB PASSWORD {}").format(
                    sql.Identifier(_NAME), sql.Literal(password)
                )
            )
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_NAME])
            if not found.fetchone():
                connection.execute(
                    sql.SQL("CREATE DATABASE {0} OWNER {0}").format(sql.Identifier(_NAME))
                )


def _plain_environment() -> dict[str, str]:
    """Return an environment without PG* words, which would change what the programs do."""
    return {name: word for name, word in os.environ.items() if not name.startswith("PG")}
