"""The controller's handle on its zygote: start it, order forks and signals, hear of exits."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence

from agents.supervisor.orders import Order
from agents.supervisor.wire import Message, Wire
from opscore.config import ROOT, load_config


class Nursery:
    """One zygote process; a dead one is replaced by `start`."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = list(modules)
        self._process: subprocess.Popen[bytes] | None = None
        self.wire: Wire | None = None
        self.loaded = False
        """It has imported everything and forks at once."""

    def start(self) -> Wire:
        """Start a zygote; returns the wire to watch."""
        mine, its = socket.socketpair()
        # Handlers may lie beside the file of agent specs.
        beside = str(load_config().agents_file.resolve().parent)
        path = os.pathsep.join(filter(None, (str(ROOT), beside, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agents.supervisor.zygote", str(its.fileno()), *self._modules],
            pass_fds=[its.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            # Ctrl-C in a terminal goes to the controller only, which drains.
            start_new_session=True,
        )
        its.close()
        self.loaded = False
        self.wire = Wire(mine)
        return self.wire

    def fork(self, order: Order, link: socket.socket, output: int) -> bool:
        """Have an agent forked that gets `link` and writes to `output`; False: no zygote."""
        message = {"do": "fork", "order": order.as_dict()}
        return self.wire is not None and self.wire.send(message, link.fileno(), output)

    def signal(self, session_id: str, number: int) -> None:
        """Send a signal to an agent; SIGKILL goes to its whole process group."""
        if self.wire is not None:
            self.wire.send({"do": "signal", "session": session_id, "signal": int(number)})

    def hear(self) -> Iterator[Message]:
        """Yield what the zygote reports: `started` and `exited`."""
        if self.wire is None:
            return
        for message in self.wire.receive():
            if message["event"] == "loaded":
                self.loaded = True
            yield message

    def stop(self, timeout_s: float = 5.0) -> None:
        """Let the zygote end, with all agents that are left; kill it when it does not."""
        if self.wire is not None:
            self.wire.close()
            self.wire = None
        self.loaded = False
        if self._process is None:
            return
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
