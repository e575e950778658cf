"""What a fork of the zygote does to become an agent, and how it lives: a Celery worker."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, NoReturn

import structlog
from celery import bootsteps
from celery.exceptions import SecurityWarning
from celery.signals import worker_ready
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

from agents import programs, runtime
from agents.commands import CommandLine
from agents.handlers import Context, Handler
from agents.hearing import Pulse
from agents.pool import ThreadPool
from agents.specs import Spec
from agents.supervisor import policy, preload, processes
from agents.supervisor.orders import Order, spec_of
from agents.supervisor.wire import Wire
from opscore.celery import app
from opscore.config import load_config
from opscore.logs import get_logger

log = get_logger(__name__)
_FIRST_OWN_FD = 3


def become(order: Order, link_fd: int, output_fd: int, parent: int) -> NoReturn:
    """Turn this fresh fork into the agent; leaves by exec or os._exit, never into our stack."""
    code = 1
    try:
        _stand_alone(order, link_fd, output_fd, parent)
        spec = spec_of(order) if order.spec else None
        if spec is not None and spec.kind == "process":
            _become_program(order, spec, link_fd)
        if spec is not None and spec.kind == "worker":
            spec.limits.apply()
        if spec is not None and spec.kind == "command":
            processes.adopt_orphans()
        lifeline = Lifeline(
            socket.socket(fileno=link_fd),
            order.beat_s,
            paused=order.paused,
            max_tasks=spec.recycle.max_tasks if spec else None,
        )
        code = serve(order, lifeline)
    except preload.HopelessError as error:
        print(error, file=sys.stderr)  # noqa: T201 - its last lines become the agent's reason
        code = policy.HOPELESS
    except BaseException:  # noqa: BLE001 - whatever it is, it ends in the log and the exit code
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _become_program(order: Order, spec: Spec, link_fd: int) -> NoReturn:
    os.set_inheritable(link_fd, False)
    own = {
        "OPSCORE_API_URL": order.api_url,
        "OPSCORE_API_KEY": order.api_key,
        "OPSCORE_AGENT_NAME": order.agent,
        "OPSCORE_CONCURRENCY": str(spec.concurrency),
    }
    try:
        programs.replace_process(spec, own)
    except (OSError, ValueError) as error:
        why = programs.why_not(error, programs.found(spec.command[0], spec.cwd), spec.cwd)
        raise preload.HopelessError(f"The program cannot be started: {why}.") from error


def _stand_alone(order: Order, link_fd: int, output_fd: int, parent: int) -> None:
    os.setsid()
    processes.die_with_parent()
    if os.getppid() != parent:
        os._exit(1)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    # Ctrl-C is for the controller, which then drains us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _write_to(output_fd)
    os.closerange(_FIRST_OWN_FD, link_fd)
    os.closerange(link_fd + 1, os.sysconf("SC_OPEN_MAX"))
    processes.show_name(order.agent)
    os.environ[processes.MARK] = order.mark
    random.seed()
    structlog.contextvars.bind_contextvars(agent=order.agent, agent_id=order.agent_id)


def _write_to(output: int) -> None:
    os.dup2(output, 1)
    os.dup2(output, 2)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)


class Lifeline:
    """The socket to the controller: beats go up, orders come down, its end ends us."""

    def __init__(
        self,
        sock: socket.socket,
        beat_s: float,
        *,
        paused: bool = False,
        max_tasks: int | None = None,
    ) -> None:
        sock.setblocking(False)
        self.wire = Wire(sock)
        self.beat_s = beat_s
        self.paused = paused
        self._is_worn = False
        if max_tasks is not None:
            runtime.tell_after(max_tasks, self._wear_out)
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)
        # Without this a SIGTERM would wait for the event loop's next timer.
        signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)

    def ready(self, **_: Any) -> None:
        """Say that work is taken from now on."""
        self.wire.send({"news": "ready"})

    def beat(self) -> None:
        """Say that we live. A controller that does not read loses beats, no more."""
        self._say_pulse(runtime.pulse())

    def _say_pulse(self, pulse: Pulse) -> None:
        facts = {"tasks": runtime.tasks_done(), "pulse": asdict(pulse)}
        self.wire.send({"news": "beat", **facts})

    @contextlib.contextmanager
    def while_connecting(self) -> Iterator[None]:
        """Beat from a thread: without a broker the event loop stands still, and we live on."""
        connected = threading.Event()

        def beat_on() -> None:
            while not connected.wait(self.beat_s):
                self._say_pulse(runtime.pulse(connected=False))

        thread = threading.Thread(target=beat_on, name="beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            connected.set()

    def attach(self, consumer: Consumer, hub: Any) -> None:
        """Beat and listen in the consumer's event loop; called anew after each reconnect."""
        hub.add_reader(self._wake, self._wake_up, consumer)
        hub.add_reader(self.wire.sock, self._hear, consumer)
        hub.call_repeatedly(self.beat_s, self.beat)
        # Celery begins to consume after this call, and before the loop's first round.
        hub.call_soon(self._heed_pause, consumer)

    def _wear_out(self) -> None:
        """Take nothing more: a fresh process is to come. Called in the thread of a task."""
        self._is_worn = True
        with contextlib.suppress(BlockingIOError):
            self._woken.send(b"\0")

    def _wake_up(self, consumer: Consumer) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake.recv(4096)
        if self._is_worn:
            self._heed_pause(consumer)
            # Until the controller hears of it nobody takes the place.
            self.beat()

    def _hear(self, consumer: Consumer) -> None:
        for message in self.wire.receive():
            for queue in message.get("queues", ()):
                log.info("agent.queue_added", queue=queue)
                consumer.add_task_queue(queue)
            if (paused := message.get("paused", self.paused)) != self.paused:
                log.info("agent.paused" if paused else "agent.resumed")
                self.paused = paused
            # Also after a new queue: it must not be begun with in a pause.
            self._heed_pause(consumer)
        if self.wire.closed:
            # The controller is dead; the zygote is about to kill us, or dead too.
            os._exit(1)

    def _heed_pause(self, consumer: Consumer) -> None:
        runtime.consume(consumer, paused=self.paused or self._is_worn)


def serve(order: Order, lifeline: Lifeline) -> int:
    """Be a Celery worker with one slot until SIGTERM; returns the exit code."""
    runtime.begin(runtime.Life(order.session, order.agent, _handlers(order)))
    # It is about pickle, which no message of ours uses; containers often run as root.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    worker_ready.connect(lifeline.ready, weak=False)
    app.steps["consumer"].add(_step(lifeline))
    events = load_config().events
    # Remote control is an open door for whoever can write to the broker; Flower needs it.
    app.conf.worker_enable_remote_control = events
    worker = app.Worker(
        hostname=f"{order.agent}@{order.host}",
        queues=order.queues,
        pool=ThreadPool,
        concurrency=1,
        consumer_cls=_consumer(lifeline),
        task_events=events,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=not events,
        quiet=True,
    )
    log.info("agent.starting", queues=order.queues)
    worker.start()
    log.info("agent.stopped", code=worker.exitcode or 0)
    return int(worker.exitcode or 0)


def _handlers(order: Order) -> Mapping[str, Handler]:
    if not order.spec:
        return {}
    spec = spec_of(order)
    if spec.kind == "command":
        command = _leaving_nothing(CommandLine.of(spec))
        return runtime.counted(dict.fromkeys(order.capabilities, command))
    return runtime.counted(preload.chosen(spec.handlers, order.capabilities))


def _leaving_nothing(command: Handler) -> Handler:
    """Return the handler with an end to all that it started, daemons too: it runs alone here."""

    def run(context: Context) -> Any:
        try:
            return command(context)
        finally:
            processes.kill_strays()

    return run


def _consumer(lifeline: Lifeline) -> type[Consumer]:
    class AgentConsumer(Consumer):
        """Celery's consumer that stays alive in the controller's eyes without a broker."""

        def ensure_connected(self, conn: Any) -> Any:
            """Connect, however long that takes; Celery's own pauses grow to 30 s."""
            with lifeline.while_connecting():
                connected = conn.ensure_connection(
                    _tell_broker_away,
                    interval_start=0.2,
                    interval_step=0.4,
                    interval_max=3,
                    callback=maybe_shutdown,
                )
            self.first_connection_attempt = False
            return connected

    return AgentConsumer


def _tell_broker_away(error: BaseException, pause_s: float) -> None:
    log.warning("agent.broker_away", error=str(error), again_in_s=round(pause_s, 1))


def _step(lifeline: Lifeline) -> type[bootsteps.StartStopStep]:
    class LifelineStep(bootsteps.StartStopStep):
        """Ties the lifeline to each event loop that the consumer starts."""

        requires = ("celery.worker.consumer.tasks:Tasks",)

        def register_with_event_loop(self, consumer: Consumer, hub: Any) -> None:
            """Celery calls this at the start of each event loop."""
            lifeline.attach(consumer, hub)

    return LifelineStep


__all__ = ["Lifeline", "become", "serve"]
