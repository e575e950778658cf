"""The embedded services as one thing: started where no URL names others, stopped together."""

from __future__ import annotations

import fcntl
import json
import os
import time
from types import TracebackType
from typing import Protocol, TextIO

from opscore.config import Config
from opscore.embedded.children import ChildError
from opscore.embedded.kept import Kept, write_private
from opscore.embedded.postgres import Postgres
from opscore.embedded.valkey import Valkey
from opscore.errors import ConflictError

#: A server that cannot be started again for so long is broken, not unlucky.
PATIENCE_S = 30.0


class Server(Protocol):
    """A service that runs as a child and can be started again under its old address."""

    @property
    def pid(self) -> int:
        """Its process id; 0 when it does not run."""

    def runs(self) -> bool:
        """Tell whether its process is alive."""

    def relaunch(self) -> str:
        """Start it again and wait for it; return a sentence. Raises ChildError."""


class ServicesBusyError(ConflictError):
    """Another Ops-Core already runs its services in this folder."""


class Services:
    """PostgreSQL and Valkey for one var folder: `with Services(config) as services`.

    Starts only what OPSCORE_DATABASE_URL and OPSCORE_BROKER_URL do not name; the URLs of both
    are then in `database_url` and `broker_url`, and for other commands in
    `config.services_file`. Raises ServicesBusyError when another process holds the folder,
    ChildError when a server does not come up. Enter it in the main thread: the servers end
    with the thread that started them.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self.database_url = config.database_url
        self.broker_url = config.broker_url
        self.postgres: Postgres | None = None
        self.valkey: Valkey | None = None
        self.kept: Kept
        self._lock: TextIO | None = None
        self._failing_since: float | None = None

    def __enter__(self) -> Services:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop what was started here; harmless when called twice."""
        if self._lock is None:
            return
        self._config.services_file.unlink(missing_ok=True)
        if self.valkey:
            self.valkey.stop()
        if self.postgres:
            self.postgres.stop()
        self._lock.close()
        self._lock = None

    def keep_running(self) -> str:
        """Start a server again that died, under its old URL; wait until it answers.

        Returns a sentence when there was one, else ''. Raises ChildError when none of the
        starts in PATIENCE_S seconds succeeded.
        """
        news = [
            self.relaunch(server)
            for server in (self.postgres, self.valkey)
            if server is not None and not server.runs()
        ]
        return "; ".join(news)

    def relaunch(self, server: Server) -> str:
        """Start this server again; one that was ended before it answered is left to the next call.

        Returns a sentence; raises ChildError as `keep_running` does.
        """
        try:
            said = server.relaunch()
        except ChildError as error:
            self._failing_since = self._failing_since or time.monotonic()
            if time.monotonic() - self._failing_since > PATIENCE_S:
                raise
            return f"{str(error).splitlines()[0]} It is tried again."
        self._failing_since = None
        return said

    def environment(self) -> dict[str, str]:
        """Return the OPSCORE_* variables with which another process finds the same services."""
        return {
            "OPSCORE_VAR_DIR": str(self._config.var_dir),
            "OPSCORE_DATABASE_URL": self.database_url,
            "OPSCORE_BROKER_URL": self.broker_url,
        }

    def _start(self) -> None:
        var_dir = self._config.var_dir
        var_dir.mkdir(parents=True, exist_ok=True)
        self._lock = self._take_lock()
        self.kept = kept = Kept(var_dir / "kept.json")
        # Both come up side by side.
        if not self.broker_url:
            self.valkey = Valkey(var_dir, kept)
            self.valkey.launch()
        if not self.database_url:
            self.postgres = Postgres(var_dir, kept)
            self.postgres.launch()
            self.postgres.wait()
            self.database_url = self.postgres.url
        if self.valkey:
            self.valkey.wait()
            self.broker_url = self.valkey.url
        write_private(
            self._config.services_file,
            json.dumps({"database_url": self.database_url, "broker_url": self.broker_url}),
        )

    def _take_lock(self) -> TextIO:
        """Hold `var/services.lock` for the life of this process; the kernel frees it."""
        path = self._config.var_dir / "services.lock"
        lock = path.open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise ServicesBusyError(
                f"Ops-Core already runs in {self._config.var_dir} (process {holder}). "
                "Stop it first, or set OPSCORE_VAR_DIR to another folder."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        return lock
