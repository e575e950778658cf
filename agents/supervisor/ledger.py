"""What the controller writes down: that it lives, what its agents do, how they ended."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from uuid import UUID

from django.db import connection, transaction
from django.db.utils import DatabaseError, OperationalError, ProgrammingError

from agents import output, pools, sessions, transitions, usage
from agents.models import AgentSession
from agents.specs import Spec
from agents.supervisor import faults, records, roster
from agents.supervisor.announcer import Announcer
from agents.supervisor.autoscaler import Autoscaler
from agents.supervisor.children import Child, Exit
from agents.supervisor.orders import last_lines, log_path
from agents.supervisor.records import Wanted
from opscore import vault
from opscore.config import Config
from opscore.errors import ConflictError, UnavailableError
from opscore.logs import get_logger
from opscore.models import Project

log = get_logger(__name__)
#: How long a supervisor waits at its start for a predecessor to let go of the host.
TAKE_OVER_S = 3.0
STOPPED = "its supervisor stopped"
_DIED = "its supervisor died"
#: The end of an output in which a limit may be named.
_TOLD_LINES, _TOLD_BYTES = 20, 16 * 1024


class HostLostError(ConflictError):
    """Another supervisor has taken this host over."""


class Ledger:
    """The rows of one host. Every method may raise DatabaseError and may then be repeated."""

    def __init__(
        self, config: Config, host: str, specs: Mapping[str, Spec], announcer: Announcer
    ) -> None:
        self.config = config
        self.host = host
        self.specs = specs
        self.announcer = announcer
        self.exits: list[Exit] = []
        """Ends of processes that are not written yet."""
        self.sizes: dict[str, int] = {}
        """How many agents of each spec should be, as last enlisted."""
        self._project: Project | None = None
        self._heard_on: int | None = None
        self._backend: int | None = None
        self._is_lost = False

    def open(self, give_up: Callable[[], bool]) -> None:
        """Take the host over from a predecessor; ConflictError when that one lives."""
        self._wait_for_database(give_up)
        give_up_at = time.monotonic() + TAKE_OVER_S
        while not records.lock_host(self.host):
            if time.monotonic() > give_up_at or give_up():
                raise ConflictError(
                    f"The host {self.host} has a supervisor already. "
                    "Give this one another name: OPSCORE_NODE_NAME."
                )
            time.sleep(0.1)
        try:
            self._project = records.default_project()
        except ProgrammingError as error:
            raise UnavailableError(
                "The database has no tables yet; run: python manage.py migrate"
            ) from error
        ended = records.take_over(self.host, _DIED)
        if ended:
            self.announcer.put(partial(sessions.announce_end, ended, _DIED))
        self._show(os.getpid())
        self.sizes = pools.sizes(self._project, self.host, self.specs)
        if not roster.enlist(self._project, self.host, self.specs, self.sizes):
            self.sizes = {}

    def _wait_for_database(self, give_up: Callable[[], bool]) -> None:
        while True:
            try:
                connection.ensure_connection()
            except OperationalError as error:
                reason = str(error).strip().partition("\n")[0]
                if give_up():
                    raise UnavailableError(f"The database does not answer: {reason}") from error
                log.warning("supervisor.database_away", error=reason)
                time.sleep(1.0)
            else:
                return

    def listen(self) -> int | None:
        """Hear of changes; returns the new descriptor to watch after each (re)connect.

        Raises HostLostError: whoever has the host now has our agents started again.
        """
        connection.ensure_connection()
        raw = connection.connection
        # Django's error for a connection that broke meanwhile: callers wait for that one.
        with connection.wrap_database_errors:
            descriptor = raw.fileno()
        if self._heard_on == descriptor:
            return None
        self._keep_host()
        # Without a handler psycopg would keep every notification in memory.
        raw.add_notify_handler(lambda _: None)
        records.listen(self.host)
        self._heard_on = raw.fileno()
        return self._heard_on

    def _keep_host(self) -> None:
        if not records.lock_host(self.host):
            if records.drop_ghost(self.host, self._backend):
                raise DatabaseError("the last connection of this supervisor still has the host")
            self._is_lost = True
            raise HostLostError(f"Another supervisor has taken the host {self.host} over.")
        self._backend = records.backend_pid()

    def lost(self) -> int | None:
        """Give the connection up after an error; returns the descriptor to watch no more."""
        descriptor, self._heard_on = self._heard_on, None
        connection.close()
        return descriptor

    def write_exits(self, *, leaving: bool) -> None:
        """End the sessions of processes that ended; tell the floors above."""
        while self.exits:
            self._write_exit(self.exits[0], leaving=leaving)
            del self.exits[0]

    def write_ready(self, children: Iterable[Child]) -> None:
        """Make agents active whose processes say so."""
        for child in children:
            if child.agent.polls and child.pid is not None and not child.pid_written:
                records.show_pid(child.session_id, child.pid)
                child.pid_written = True
            if child.ready and not child.ready_written and not child.agent.polls:
                agent_id = sessions.mark_ready(child.session_id, child.pid)
                child.ready_written = True
                if agent_id is not None:
                    self.announcer.put(partial(sessions.announce_ready, agent_id))

    def began(self, session_id: UUID) -> bool:
        """Tell whether a program ever began its session; True when the database is away.

        Without one it could not begin, which is no fault of its own.
        """
        if self._heard_on is None:
            return True
        try:
            begun = AgentSession.objects.filter(pk=session_id, ready_at__isnull=False)
            return begun.exists()
        except DatabaseError:
            return True

    def beat(self, children: Iterable[Child]) -> list[Child]:
        """Write that these live; returns those whose session somebody has ended."""
        by_id = {child.session_id: child for child in children if not child.beats_itself}
        live = sessions.beat(by_id)
        self._show(os.getpid())
        return [child for session_id, child in by_id.items() if session_id not in live]

    def close(self, children: Iterable[Child]) -> None:
        """Write that this supervisor and whatever it still had are gone."""
        if self._is_lost:  # its successor writes all that
            return
        with contextlib.suppress(DatabaseError):
            self.write_exits(leaving=True)
            sessions.end([child.session_id for child in children], STOPPED)
            rows = records.wanted(self.host).values()
            ended = [agent.id for agent in rows if agent.status != "error"]
            transitions.change(ended, "terminated", reason=STOPPED)
            self._show(None)

    def resize(self, autoscaler: Autoscaler, now: float) -> bool:
        """Enlist more or fewer agents where a pool's size has changed; True: it has."""
        if self._project is None:
            return False
        autoscaler.step(self._project, self.host, now)
        sizes = pools.sizes(self._project, self.host, self.specs)
        if sizes == self.sizes:
            return False
        log.info("supervisor.resized", host=self.host, sizes=sizes)
        if not roster.enlist(self._project, self.host, self.specs, sizes):
            return False
        self.sizes = sizes
        return True

    def answer_questions(self) -> None:
        """Write the outputs that somebody asked for."""
        output.write({asked.agent_id: self._tail(asked) for asked in output.asked(self.host)})

    def _tail(self, agent: Wanted | output.Question) -> str:
        path = log_path(self.config.var_dir, agent.project, agent.name)
        return _masked(agent, last_lines(path, output.MAX_LINES, output.MAX_BYTES))

    def log_of(self, agent: Wanted) -> Path:
        """Return the file that takes the agent's output."""
        return log_path(self.config.var_dir, agent.project, agent.name)

    def limit_hit(self, child: Child, code: int) -> str:
        """Return which limit of its spec ended a process with this exit code; '': none did."""
        spec = self.specs.get(child.agent.spec)
        if spec is None or child.stopping:
            return ""
        # Only what this life wrote: an earlier one may have run into a limit.
        most = min(child.output.written, _TOLD_BYTES)
        last = last_lines(child.output.path, _TOLD_LINES, most)
        return faults.limit_hit(spec, code, child.cpu_s, last)

    def _write_exit(self, exit_: Exit, *, leaving: bool) -> None:
        child, agent_id = exit_.child, exit_.child.agent.id
        with transaction.atomic():
            ended = sessions.close([child.session_id], exit_.reason, lost=not exit_.drained)
            output.write({agent_id: self._tail(child.agent)})
            usage.forget([agent_id])
            if exit_.given_up:
                said = _masked(child.agent, last_lines(self.log_of(child.agent)))
                reason = f"{exit_.reason}\n{said}".strip()
                transitions.change([agent_id], "error", reason=reason)
            elif not leaving:
                # Whether it starts again or stays down is decided by the next look.
                transitions.change(
                    [agent_id], "restarting", reason=exit_.reason, crashed=exit_.crashed
                )
        if ended:
            self.announcer.put(partial(sessions.announce_end, ended, exit_.reason))

    def _show(self, pid: int | None) -> None:
        if self._project is not None:
            records.show_host(self._project, self.host, self.specs, pid)


def _masked(agent: Wanted | output.Question, text: str) -> str:
    """Return what may be shown of an agent's output: its file on this host has all."""
    return vault.redactor(agent.project_id).text(text)
