"""The embedded Valkey: append-only file, password, loopback port."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import redis

from opscore.embedded import children
from opscore.embedded.binaries import valkey_server
from opscore.embedded.children import ChildError
from opscore.embedded.kept import Kept, write_private
from opscore.exits import describe

_TAKEN = "Address already in use"
_TAKEN_LIMIT_S = 15.0


class Valkey:
    """One Valkey server on a folder of its own, child of this process."""

    def __init__(self, var_dir: Path, kept: Kept) -> None:
        self._program = valkey_server()
        self._folder = var_dir.resolve() / "valkey"
        self._log = var_dir / "log" / "valkey.log"
        self._password = kept.secret("broker_password")
        self._child: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """The broker's URL with its password."""
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

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
        children.wait_until_ready(self._child, "Valkey", self._log, self._answers)
        return f"Valkey ended with {end} and was started again"

    def launch(self, port: int = 0) -> None:
        """Start the server without waiting."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        children.end_orphans(self._folder, signal.SIGTERM)
        self._port = port or children.free_port()
        settings = self._folder / "valkey.conf"
        # A file, because arguments of a process are public.
        write_private(settings, self._settings())
        self._child = children.start(
            [self._program, settings],
            log=self._log,
            cwd=self._folder,
            death_signal=signal.SIGTERM,
        )

    def wait(self) -> None:
        """Wait until it answers."""
        give_up_at = time.monotonic() + _TAKEN_LIMIT_S
        while True:
            try:
                assert self._child is not None  # noqa: S101 - launch() comes first
                children.wait_until_ready(self._child, "Valkey", self._log, self._answers)
            except ChildError as error:
                if _TAKEN not in str(error) or time.monotonic() > give_up_at:
                    raise
                self.launch()
            else:
                return

    def stop(self) -> None:
        """Stop after the append-only file is written."""
        if self._child:
            children.stop(self._child, signal.SIGTERM, grace_s=15)
            self._child = None

    def _settings(self) -> str:
        return "\n".join(
            [
                "bind 127.0.0.1",
                f"port {self._port}",
                f"requirepass {self._password}",
                "daemonize no",
                "appendonly yes",
                "appendfsync everysec",
                'save ""',
                # A broker that evicts loses hints without a word.
                "maxmemory-policy noeviction",
                "loglevel warning",
                "",
            ]
        )

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=5) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
