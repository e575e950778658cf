"""The zygote: a preloaded process without connections or threads that forks agents.

    python -m agents.supervisor.zygote FD OPEN_FILES MODULE…

It owns waitpid. It ends, and every agent with it, when the controller closes FD.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys
from dataclasses import dataclass

from agents.supervisor import preload, processes
from agents.supervisor.agent import become
from agents.supervisor.orders import Order
from agents.supervisor.wire import Message, Wire
from opscore.config import load_config

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


@dataclass
class _Agent:
    pid: int
    session_id: str
    mark: str = ""


class Zygote:
    """Forks, reaps and reports, on orders from one wire."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.agents: dict[int, _Agent] = {}
        self.wake, self._woken = socket.socketpair()
        self.wake.setblocking(False)
        self._woken.setblocking(False)
        self.selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Serve until the controller is gone, then leave nothing behind."""
        self._mind_signals()
        self.selector.register(self.wire, selectors.EVENT_READ)
        self.selector.register(self.wake, selectors.EVENT_READ)
        self.wire.send({"event": "loaded"})
        while not self.wire.closed:
            for key, _ in self.selector.select():
                if key.fileobj is self.wire:
                    self._obey()
                else:
                    self._reap()
        self._end_all()

    def _mind_signals(self) -> None:
        # Only the controller ends the zygote: a SIGTERM to the whole group must let agents drain.
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)

    def _obey(self) -> None:
        for message in self.wire.receive():
            if message["do"] == "fork":
                self._fork(Order(**message["order"]), self.wire.take_fd(), self.wire.take_fd())
            else:
                self._signal(message)

    def _fork(self, order: Order, link_fd: int, output_fd: int) -> None:
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            pid = -1
            self._report(0, order.session_id, 1, why=f"fork failed: {error.strerror}")
        if pid == 0:
            self.selector.close()
            become(order, link_fd, output_fd, parent)
        os.close(link_fd)
        os.close(output_fd)
        if pid < 0:
            return
        self.agents[pid] = _Agent(pid, order.session_id, order.mark)
        self.wire.send({"event": "started", "session": order.session_id, "pid": pid})

    def _signal(self, message: Message) -> None:
        # Only unreaped children are in the table, so a pid cannot have been used again.
        for agent in [a for a in self.agents.values() if a.session_id == message["session"]]:
            if message["signal"] == signal.SIGKILL:
                processes.kill_group(agent.pid)
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(agent.pid, message["signal"])

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self.wake.recv(4096)
        ended = []
        while self.agents:
            pid, status, used = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid in self.agents:
                cpu_s = used.ru_utime + used.ru_stime
                code = os.waitstatus_to_exitcode(status)
                ended.append((self.agents.pop(pid), code, cpu_s))
        if ended:
            # Programs that a dead agent had started are our children now.
            marks = {agent.pid: agent.mark for agent, _, _ in ended}
            processes.kill_orphans_of(marks, self.agents)
        for agent, code, cpu_s in ended:
            self._report(agent.pid, agent.session_id, code, cpu_s)

    def _report(
        self, pid: int, session_id: str, code: int, cpu_s: float = 0.0, why: str = ""
    ) -> None:
        facts = {"pid": pid, "code": code, "cpu_s": cpu_s, "why": why}
        self.wire.send({"event": "exited", "session": session_id, **facts})

    def _end_all(self) -> None:
        for pid in self.agents:
            processes.kill_group(pid)
        processes.kill_strays()


def main() -> None:
    """Load, freeze, serve."""
    fd, open_files, *modules = sys.argv[1:]
    processes.allow_open_files(int(open_files))
    processes.adopt_orphans()
    processes.show_name("ops-zygote")
    preload.platform(load_config().service_url("broker_url"))
    preload.handlers(modules)
    preload.freeze()
    Zygote(Wire(socket.socket(fileno=int(fd)))).run()


if __name__ == "__main__":
    main()
