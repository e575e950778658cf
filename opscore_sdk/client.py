"""The clients: one method for each thing that the API does, blocking or awaited.

What a call asks and what becomes of the answer stands once, in `opscore_sdk.calls`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from opscore_sdk import calls
from opscore_sdk.calls.runs import Watch
from opscore_sdk.calls.workflows import media_type_of
from opscore_sdk.transport import Async, AsyncLine, Sync, SyncLine
from opscore_sdk.wire import Run

__all__ = ["AsyncClient", "Client", "media_type_of"]


class Client(SyncLine):
    """A blocking client of one platform; use it as a context manager or call `close`.

    Example:
        with Client("http://127.0.0.1:8000", api_key="ok_…") as client:
            run = client.execute("review", inputs={"repo": "."})
            print(client.wait(run.id).outputs)

    Without address and key it takes OPSCORE_API_URL and OPSCORE_API_KEY. Every method raises
    `ApiError` (see `opscore_sdk.errors`) when the platform refuses, and `UnreachableError` when
    nobody answers; connection errors are retried for about three seconds first, safely: a POST
    carries an `Idempotency-Key`.
    """

    health = Sync(calls.agents.health)
    events = Sync(calls.agents.events)
    pauses = Sync(calls.agents.pauses)
    pause_all = Sync(calls.agents.pause_all)
    resume_all = Sync(calls.agents.resume_all)

    validate = Sync(calls.workflows.validate)
    draw = Sync(calls.workflows.draw)
    graph = Sync(calls.workflows.graph)
    upload = Sync(calls.workflows.upload)
    upload_file = Sync(calls.workflows.upload_file)
    workflows = Sync(calls.workflows.workflows)
    workflow = Sync(calls.workflows.workflow)
    execute = Sync(calls.workflows.execute)

    runs = Sync(calls.runs.runs)
    run = Sync(calls.runs.run)
    wait = Sync(calls.runs.wait)
    cancel_run = Sync(calls.runs.cancel_run)
    pause_run = Sync(calls.runs.pause_run)
    resume_run = Sync(calls.runs.resume_run)
    rerun = Sync(calls.runs.rerun)
    redrive = Sync(calls.runs.redrive)
    signal = Sync(calls.runs.signal)
    signals = Sync(calls.runs.signals)
    messages = Sync(calls.runs.messages)
    why_run = Sync(calls.runs.why_run)
    shared = Sync(calls.runs.shared)
    get_shared = Sync(calls.runs.get_shared)
    put_shared = Sync(calls.runs.put_shared)
    delete_shared = Sync(calls.runs.delete_shared)
    send_message = Sync(calls.runs.send_message)

    submit = Sync(calls.tasks.submit)
    tasks = Sync(calls.tasks.tasks)
    task = Sync(calls.tasks.task)
    cancel_task = Sync(calls.tasks.cancel_task)
    why_task = Sync(calls.tasks.why_task)
    signal_task = Sync(calls.tasks.signal_task)
    logs = Sync(calls.tasks.logs)
    approvals = Sync(calls.tasks.approvals)
    approve = Sync(calls.tasks.approve)
    reject = Sync(calls.tasks.reject)

    agents = Sync(calls.agents.agents)
    agent = Sync(calls.agents.agent)
    register_agent = Sync(calls.agents.register_agent)
    restart_agent = Sync(calls.agents.restart_agent)
    pause_agent = Sync(calls.agents.pause_agent)
    resume_agent = Sync(calls.agents.resume_agent)
    stop_agent = Sync(calls.agents.stop_agent)
    drain_agent = Sync(calls.agents.drain_agent)
    agent_logs = Sync(calls.agents.agent_logs)
    hosts = Sync(calls.agents.hosts)
    host = Sync(calls.agents.host)
    scale = Sync(calls.agents.scale)
    unscale = Sync(calls.agents.unscale)
    retire_agent = Sync(calls.agents.retire_agent)
    change_secret = Sync(calls.agents.change_secret)

    schedules = Sync(calls.schedules.schedules)
    schedule = Sync(calls.schedules.schedule)
    create_schedule = Sync(calls.schedules.create_schedule)
    change_schedule = Sync(calls.schedules.change_schedule)
    delete_schedule = Sync(calls.schedules.delete_schedule)
    pause_schedule = Sync(calls.schedules.pause_schedule)
    resume_schedule = Sync(calls.schedules.resume_schedule)
    trigger_schedule = Sync(calls.schedules.trigger_schedule)
    backfill_schedule = Sync(calls.schedules.backfill_schedule)
    slots = Sync(calls.schedules.slots)

    begin_session = Sync(calls.executor.begin_session)
    end_session = Sync(calls.executor.end_session)
    task_heartbeat = Sync(calls.executor.task_heartbeat)
    claim = Sync(calls.executor.claim)
    heartbeat = Sync(calls.executor.heartbeat)
    report_completed = Sync(calls.executor.report_completed)
    report_failed = Sync(calls.executor.report_failed)
    add_logs = Sync(calls.executor.add_logs)
    set_progress = Sync(calls.executor.set_progress)
    receive_messages = Sync(calls.executor.receive_messages)
    ack_message = Sync(calls.executor.ack_message)

    def watch(
        self,
        run_id: str,
        *,
        every_s: float = 0.5,
        timeout_s: float | None = None,
        patience_s: float = 0.0,
    ) -> Iterator[Run]:
        """Yield the run now and every `every_s` seconds, until it has ended (the last one).

        For `patience_s` seconds at a time it stays, although the platform does not answer. Raises
        WaitTimeoutError after `timeout_s`; the run goes on.
        """
        look = Watch(run_id, every_s=every_s, timeout_s=timeout_s, patience_s=patience_s)
        seen = self.hold(look.next())
        yield seen
        while not seen.has_ended:
            seen = self.hold(look.next())
            yield seen


class AsyncClient(AsyncLine):
    """The same client for an event loop: every method of `Client`, to be awaited.

    Example:
        async with AsyncClient() as client:
            run = await client.execute("review", inputs={"repo": "."})
            print((await client.wait(run.id)).outputs)
    """

    health = Async(calls.agents.health)
    events = Async(calls.agents.events)
    pauses = Async(calls.agents.pauses)
    pause_all = Async(calls.agents.pause_all)
    resume_all = Async(calls.agents.resume_all)

    validate = Async(calls.workflows.validate)
    draw = Async(calls.workflows.draw)
    graph = Async(calls.workflows.graph)
    upload = Async(calls.workflows.upload)
    upload_file = Async(calls.workflows.upload_file)
    workflows = Async(calls.workflows.workflows)
    workflow = Async(calls.workflows.workflow)
    execute = Async(calls.workflows.execute)

    runs = Async(calls.runs.runs)
    run = Async(calls.runs.run)
    wait = Async(calls.runs.wait)
    cancel_run = Async(calls.runs.cancel_run)
    pause_run = Async(calls.runs.pause_run)
    resume_run = Async(calls.runs.resume_run)
    rerun = Async(calls.runs.rerun)
    redrive = Async(calls.runs.redrive)
    signal = Async(calls.runs.signal)
    signals = Async(calls.runs.signals)
    messages = Async(calls.runs.messages)
    why_run = Async(calls.runs.why_run)
    shared = Async(calls.runs.shared)
    get_shared = Async(calls.runs.get_shared)
    put_shared = Async(calls.runs.put_shared)
    delete_shared = Async(calls.runs.delete_shared)
    send_message = Async(calls.runs.send_message)

    submit = Async(calls.tasks.submit)
    tasks = Async(calls.tasks.tasks)
    task = Async(calls.tasks.task)
    cancel_task = Async(calls.tasks.cancel_task)
    why_task = Async(calls.tasks.why_task)
    signal_task = Async(calls.tasks.signal_task)
    logs = Async(calls.tasks.logs)
    approvals = Async(calls.tasks.approvals)
    approve = Async(calls.tasks.approve)
    reject = Async(calls.tasks.reject)

    agents = Async(calls.agents.agents)
    agent = Async(calls.agents.agent)
    register_agent = Async(calls.agents.register_agent)
    restart_agent = Async(calls.agents.restart_agent)
    pause_agent = Async(calls.agents.pause_agent)
    resume_agent = Async(calls.agents.resume_agent)
    stop_agent = Async(calls.agents.stop_agent)
    drain_agent = Async(calls.agents.drain_agent)
    agent_logs = Async(calls.agents.agent_logs)
    hosts = Async(calls.agents.hosts)
    host = Async(calls.agents.host)
    scale = Async(calls.agents.scale)
    unscale = Async(calls.agents.unscale)
    retire_agent = Async(calls.agents.retire_agent)
    change_secret = Async(calls.agents.change_secret)

    schedules = Async(calls.schedules.schedules)
    schedule = Async(calls.schedules.schedule)
    create_schedule = Async(calls.schedules.create_schedule)
    change_schedule = Async(calls.schedules.change_schedule)
    delete_schedule = Async(calls.schedules.delete_schedule)
    pause_schedule = Async(calls.schedules.pause_schedule)
    resume_schedule = Async(calls.schedules.resume_schedule)
    trigger_schedule = Async(calls.schedules.trigger_schedule)
    backfill_schedule = Async(calls.schedules.backfill_schedule)
    slots = Async(calls.schedules.slots)

    begin_session = Async(calls.executor.begin_session)
    end_session = Async(calls.executor.end_session)
    task_heartbeat = Async(calls.executor.task_heartbeat)
    claim = Async(calls.executor.claim)
    heartbeat = Async(calls.executor.heartbeat)
    report_completed = Async(calls.executor.report_completed)
    report_failed = Async(calls.executor.report_failed)
    add_logs = Async(calls.executor.add_logs)
    set_progress = Async(calls.executor.set_progress)
    receive_messages = Async(calls.executor.receive_messages)
    ack_message = Async(calls.executor.ack_message)

    async def watch(
        self,
        run_id: str,
        *,
        every_s: float = 0.5,
        timeout_s: float | None = None,
        patience_s: float = 0.0,
    ) -> AsyncIterator[Run]:
        """Yield the run as `Client.watch` does."""
        look = Watch(run_id, every_s=every_s, timeout_s=timeout_s, patience_s=patience_s)
        seen = await self.hold(look.next())
        yield seen
        while not seen.has_ended:
            seen = await self.hold(look.next())
            yield seen
