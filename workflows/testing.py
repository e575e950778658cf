"""Pytest plugin: rehearse workflows on the real engine, in this process and in virtual time.

`pytest_plugins = ["workflows.testing"]` in a conftest gives tests the fixture `rehearsal`;
docs/testing.md shows how it is used.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import pytest

from agents import registry as agents_registry
from agents import runtime, sessions
from agents.handlers import Context, Handler, Registered
from agents.models import AgentSession
from opscore.database import database_now
from opscore.durations import parse_duration
from opscore.models import Project
from tasks import inbox, reconcile
from tasks.execution import Outcome, execute
from tasks.models import Run, Task
from tasks.results import outputs_of, result_of
from tasks.states import RUN
from workflows import registry, virtual_time
from workflows.definition import Definition, parse

T = TypeVar("T")

#: What a reconciler does, without what it does for the broker.
_REPAIRS = [
    step
    for step in reconcile.STEPS
    if step not in (reconcile.notice_broker_loss, reconcile.repeat_hints, reconcile.fill_windows)
]


class RehearsalError(Exception):
    """The test asked for something that cannot be, or forgot to say who does a task."""


class Rehearsal:
    """Executes runs in this process, one task after the other, and jumps over every wait.

    The database, the engine and the definitions are the real ones; only agents, broker and the
    passing of time are not. Functions do a task in no virtual time, unless `does` says more.
    """

    def __init__(self, project: Project, session: AgentSession) -> None:
        self.project = project
        self.session = session
        self.handlers: dict[str, Handler] = {}
        self.calls: dict[str, list[dict[str, Any]]] = defaultdict(list)
        """The inputs of every attempt, by capability, in order."""
        self._nobody: set[str] = set()
        self._idle: set[UUID] = set()
        self._broken: BaseException | None = None
        self._last: Run | None = None

    # ---------------------------------------------------------------- who does what
    def does(self, capability: str, function: Handler, *, takes: str | float = 0) -> None:
        """Have `function` do the tasks of a capability: a Context in, a JSON value out.

        Raise `agents.handlers.HandlerError` in it to fail the attempt; a failed assertion in it
        fails the test. `takes` is the virtual time of its work, in which it gives no sign of life.
        """
        registered = (
            function if isinstance(function, Registered) else Registered(capability, function)
        )
        takes_s = parse_duration(takes) if takes else 0.0
        self._nobody.discard(capability)
        self.handlers[capability] = replace(
            registered, function=lambda context: self._act(registered.function, context, takes_s)
        )

    def nobody_does(self, capability: str) -> None:
        """Leave the tasks of a capability in their queue, as if no agent were there."""
        self._nobody.add(capability)

    def _act(self, function: Handler, context: Context, takes_s: float) -> Any:
        self.calls[context.capability].append(context.inputs)
        if takes_s and not self._pass(takes_s, lambda: _at_work(context)):
            return None  # timed out meanwhile: a real process would have been killed
        try:
            return function(context)
        except (AssertionError, pytest.fail.Exception) as error:
            self._broken = error
            raise

    # ---------------------------------------------------------------- runs
    def upload(self, definition: Definition | Path | str) -> str:
        """Keep a definition, as a sub-workflow needs it; return its name.

        Text is YAML or JSON; a text of one line that is no JSON is the path of a file.
        Raises InvalidError with every problem.
        """
        checked = definition if isinstance(definition, Definition) else parse(_text(definition))
        registry.upload(self.project, checked)
        return checked.name

    def start(
        self, definition: Definition | Path | str, inputs: Mapping[str, Any] | None = None
    ) -> Run:
        """Upload a definition and start a run of it; nothing is executed yet."""
        name = self.upload(definition)
        self._last = registry.execute(self.project, name, inputs=inputs or {})
        return self._last

    def finish(self, run: Run | None = None) -> Run:
        """Execute and jump until the run (the last one started) has ended, or nothing is due.

        A run that waits for a signal or a decision without a limit is still `running` then.
        """
        run = run or self._started()
        self.until(lambda: self._status(run) in RUN.terminal)
        run.refresh_from_db()
        return run

    def _started(self) -> Run:
        if self._last is None:
            raise RehearsalError("No run was started yet.")
        return self._last

    @staticmethod
    def _status(run: Run) -> str:
        return str(Run.objects.values_list("status", flat=True).get(pk=run.pk))

    # ---------------------------------------------------------------- work and time
    def work(self) -> None:
        """Execute what is queued, in any run, until nothing is; no time passes."""
        self._idle.clear()
        _repair()
        while self._drain():
            _repair()

    def _drain(self) -> bool:
        """Return whether there was anything to do."""
        busy = False
        while task := self._next():
            self._check(task)
            self.step(task)
            busy = True
        return busy

    def _next(self) -> Task | None:
        """Return the most urgent task, the oldest of these, that is not left lying."""
        queued = Task.objects.filter(status="queued").exclude(capability__in=self._nobody)
        return queued.exclude(id__in=self._idle).order_by("-priority", "run_id", "number").first()

    def step(self, task: Task) -> Outcome:
        """Execute one queued task."""
        task.refresh_from_db()
        outcome = execute(task.id, task.attempt, ())
        broken, self._broken = self._broken, None
        if broken is not None:
            raise broken
        untouched = Task.objects.filter(id=task.id, fence=task.fence, status="queued")
        if outcome is Outcome.STALE and untouched.exists():
            self._idle.add(task.id)  # paused, perhaps: looked at again when time has passed
        return outcome

    def _check(self, task: Task) -> None:
        if task.uses == "agent" and task.capability not in self.handlers:
            raise RehearsalError(
                f"Nobody does {task.capability!r}, which task {task.key!r} needs: say "
                f"rehearsal.does({task.capability!r}, function), or "
                f"rehearsal.nobody_does({task.capability!r})."
            )

    def until(self, condition: Callable[[], T]) -> T:
        """Execute and jump from one due moment to the next until `condition()` is true.

        Returns its answer: a false one when nothing is due any more.
        """
        while True:
            looked_at = database_now()
            self.work()
            answer = condition()
            wait_s = None if answer else virtual_time.until_next(looked_at)
            if wait_s is None:
                return answer
            virtual_time.jump(wait_s)

    def advance(self, duration: str | float) -> None:
        """Let so much time pass (`2d`, `90s`, seconds), doing what becomes due on the way."""
        self._pass(parse_duration(duration), self._worked)

    def _worked(self) -> bool:
        self.work()
        return True

    @staticmethod
    def _pass(seconds: float, act: Callable[[], bool]) -> bool:
        """Jump from due moment to due moment, and `act` at each; False: it wanted to stop."""
        left = seconds
        while True:
            looked_at = database_now()
            if not act():
                return False
            wait_s = virtual_time.until_next(looked_at)
            if wait_s is None or wait_s > left:
                virtual_time.jump(left)
                return act()
            virtual_time.jump(wait_s)
            left -= max(wait_s, 0.0)

    @property
    def elapsed_s(self) -> float:
        """The virtual seconds since the first run began; the test's own time is in it."""
        return virtual_time.elapsed_s()

    # ---------------------------------------------------------------- people and programs outside
    def approve(self, key: str, *, by: str = "rehearsal", comment: str = "") -> None:
        """Go on until the task waits for a decision, in whatever run, and approve it.

        Raises RehearsalError when it never does.
        """
        self._decide(key, "approve", by, comment)

    def reject(self, key: str, *, by: str = "rehearsal", comment: str = "") -> None:
        """Go on until the task waits for a decision, in whatever run, and reject it."""
        self._decide(key, "reject", by, comment)

    def _decide(self, key: str, decision: str, by: str, comment: str) -> None:
        waiting = Task.objects.filter(key=key, status="waiting", waits_for="approval")
        task = self.until(waiting.order_by("id").first)
        if task is None:
            there = {task.key: task.status for task in Task.objects.order_by("id")[:50]}
            raise RehearsalError(f"No task {key!r} ever waits for a decision. There are: {there}")
        inbox.decide(task.id, decision, by=by, comment=comment)

    def signal(self, name: str, payload: Any = None, run: Run | None = None) -> None:
        """Send a signal to a run: the one given, else one that waits for it, else the last one.

        A run keeps a signal that no task waits for yet.
        """
        waiting = Task.objects.filter(waits_for="signal", names__signal=name).order_by("id").first()
        run_id = run.pk if run else waiting.run_id if waiting else self._started().pk
        inbox.send(run_id, name, payload, "rehearsal")

    # ---------------------------------------------------------------- what became of it
    def outputs(self, run: Run | None = None) -> Any:
        """Return what the run gave; None while it has not completed, or declares no outputs."""
        return outputs_of(run or self._started())

    def tasks(self, run: Run | None = None) -> dict[str, str]:
        """Return the status of each task of the run by its key, items as `key[0]`."""
        rows = (run or self._started()).tasks.order_by("number")
        return dict(rows.values_list("key", "status"))

    def result(self, key: str, run: Run | None = None) -> Any:
        """Return a task's result; None while there is none. Raises RehearsalError without it."""
        task = (run or self._started()).tasks.filter(key=key).first()
        if task is None:
            raise RehearsalError(f"The run has no task {key!r}, only {', '.join(self.tasks(run))}.")
        return result_of(task)

    def inside(self, key: str, run: Run | None = None) -> Run:
        """Return the newest run inside a task: of a block or of a sub-workflow."""
        above = (run or self._started()).tasks.filter(key=key).values_list("id", flat=True)
        found = Run.objects.filter(parent_task_id__in=above).order_by("-id").first()
        if found is None:
            raise RehearsalError(f"There is no run inside of {key!r}.")
        return found


def _repair() -> None:
    # Whoever acts here lives, however far time jumps while he works.
    alive = AgentSession.objects.filter(ended_at=None).values_list("pk", flat=True)
    sessions.beat(alive, by_program=True)
    for step in _REPAIRS:
        while step():
            pass


def _at_work(context: Context) -> bool:
    """Repair, then tell whether this attempt still counts."""
    _repair()
    held = Task.objects.filter(id=context.task_id, status="running", attempt=context.attempt)
    return held.exists()


def _text(source: Path | str) -> str:
    is_text = isinstance(source, str) and ("\n" in source or source.lstrip().startswith("{"))
    return str(source) if is_text else Path(source).read_text(encoding="utf-8")


@pytest.fixture
def rehearsal(transactional_db: None) -> Iterator[Rehearsal]:
    """A stage for workflows: see `Rehearsal`."""
    project = Project.objects.get_or_create(slug="default")[0]
    agent = agents_registry.register(
        project, name="rehearsal", kind="remote", capabilities=["rehearsal"]
    )[0]
    stage = Rehearsal(project, sessions.start(agent))
    runtime.begin(runtime.Life(stage.session.id, "rehearsal", stage.handlers))
    yield stage
    runtime.begin(None)
