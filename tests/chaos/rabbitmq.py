"""A RabbitMQ of our own: child processes on free ports, its files in one folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from types import TracebackType

from kombu import Connection

from opscore.embedded import children

# The distribution's wrapper changes the account; the script below it does not.
_SERVERS = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server")


class RabbitMQ:
    """`with RabbitMQ(folder) as server:`; what `opscore.embedded.valkey` does for Valkey."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "rabbitmq"
        self._port, self._epmd_port, dist_port = (children.free_port() for _ in range(3))
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}//"
        self._log = folder / "log" / "rabbitmq.log"
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._env = {
            **os.environ,
            "HOME": str(self._folder),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "chaos@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(dist_port),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._folder),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(self._folder / "none"),
            "RABBITMQ_PID_FILE": str(self._folder / "pid"),
        }

    @staticmethod
    def installed() -> bool:
        """Tell whether this machine has a RabbitMQ."""
        return bool(_program()) and bool(shutil.which("epmd"))

    @property
    def pid(self) -> int:
        """The server's process group."""
        return self._children["server"].pid

    def runs(self) -> bool:
        """Tell whether the server's process is alive."""
        return self._children["server"].poll() is None

    def relaunch(self) -> str:
        """Start a server that died again, under its old address."""
        self._launch()
        return "RabbitMQ was started again"

    def __enter__(self) -> RabbitMQ:
        self._folder.mkdir()
        self._children["epmd"] = self._start("epmd", "-port", str(self._epmd_port))
        self._launch()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for child in reversed(self._children.values()):
            children.kill_session(child)

    def _launch(self) -> None:
        if found := self._children.get("server"):
            children.kill_session(found)
        server = self._children["server"] = self._start(_program())
        children.wait_until_ready(server, "RabbitMQ", self._log, self._answers)

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        return children.start(
            command, log=self._log, cwd=self._folder, death_signal=signal.SIGKILL, env=self._env
        )

    def _answers(self) -> bool:
        try:
            with Connection(self.url, connect_timeout=2) as connection:
                connection.connect()
        except OSError:
            return False
        return True


def _program() -> str:
    return next((found for name in _SERVERS if (found := shutil.which(name))), "")
