"""The controller's handle on its zygote: start it, order forks and signals, hear of exits."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence

from agents.supervisor.orders import Order
from agents.supervisor.wire import Message, Wire
from opscore.config import ROOT, load_config


class Nursery:
    """One zygote process; a dead one is replaced by `start`.

    It never waits for the zygote, which may be waiting for us: orders that its socket does not
    take are kept for `flush`.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        self.open_files = 0
        """How many files each agent may have open; 0: as many as this process."""
        self._modules = list(modules)
        self._orders: deque[tuple[Message, tuple[int, ...]]] = deque()
        self._process: subprocess.Popen[bytes] | None = None
        self.wire: Wire | None = None
        self.loaded = False
        """It has imported everything and forks at once."""

    def start(self) -> Wire:
        """Start a zygote; returns the wire to watch."""
        mine, its = socket.socketpair()
        mine.setblocking(False)
        # Handlers may lie beside the file of agent specs.
        beside = str(load_config().agents_file.resolve().parent)
        path = os.pathsep.join(filter(None, (str(ROOT), beside, os.environ.get("PYTHONPATH"))))
        words = (str(its.fileno()), str(self.open_files), *self._modules)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agents.supervisor.zygote", *words],
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

    @property
    def is_behind(self) -> bool:
        """Whether orders wait; `flush` when the wire can be written to."""
        return bool(self._orders) or (self.wire is not None and self.wire.is_behind)

    @property
    def takes_orders(self) -> bool:
        """Whether a fork would happen now, not after others that wait."""
        return self.loaded and not self.is_behind

    def fork(self, order: Order, link: int, output: int) -> bool:
        """Have an agent forked that gets `link` and writes to `output`; False: no zygote.

        The descriptors are ours from now on.
        """
        return self._put({"do": "fork", "order": order.as_dict()}, link, output)

    def signal(self, session_id: str, number: int) -> None:
        """Send a signal to an agent; SIGKILL goes to its whole process group."""
        self._put({"do": "signal", "session": session_id, "signal": int(number)})

    def flush(self) -> None:
        """Send what waits, as far as the zygote takes it."""
        while self.wire is not None and self._orders:
            message, fds = self._orders[0]
            if not self.wire.send(message, *fds):
                return
            self._forget_first()
        if self.wire is not None:
            self.wire.flush()

    def _put(self, message: Message, *fds: int) -> bool:
        self._orders.append((message, fds))
        if self.wire is None:
            self._forget_first()
            return False
        self.flush()
        return True

    def _forget_first(self) -> None:
        for descriptor in self._orders.popleft()[1]:
            os.close(descriptor)

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
        while self._orders:
            self._forget_first()
        if self._process is None:
            return
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
