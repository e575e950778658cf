"""Kind `process`: real programs under a real supervisor, speaking to a real web server."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from agents import registry
from agents.models import Agent, AgentSession
from opscore.config import ROOT
from opscore.models import ApiKey, Event, Project
from tasks.graph import Node
from tasks.models import Task
from tasks.submission import submit_task
from tests.agents.conftest import Host
from tests.conftest import WaitUntil
from tests.live_server import Server, server, server_url

__all__ = ["server", "server_url"]

Start = Callable[..., Host]
HERE = Path(__file__).parent


@pytest.fixture
def start(start_host: Callable[..., Host], server: Server) -> Start:
    """Start a supervisor of one spec `prog`: `start("limits: {…}", ROLE="forks")`."""

    def begin(extra: str = "", *, command: str = "[python, program.py]", **environ: str) -> Host:
        role = {name: environ.pop(name) for name in ("ROLE", "MEGABYTES") if name in environ}
        text = (
            "agents:\n  prog:\n    kind: process\n    capabilities: [prog]\n"
            f"    command: {command}\n    cwd: {HERE}\n    env: {role}\n"
        )
        text += "".join(f"    {line}\n" for line in extra.splitlines())
        settings = {"OPSCORE_API_URL": server.url, "OPSCORE_DRAIN_S": "5", **environ}
        return start_host(text, **settings)

    return begin


def submit(project: Project, **inputs: Any) -> Task:
    return submit_task(project, Node(key="task", capability="prog", inputs=inputs))


def is_done(task: Task) -> bool:
    task.refresh_from_db()
    return task.status == "completed"


def is_running(task: Task) -> bool:
    task.refresh_from_db()
    return task.status == "running"


def pid_of(session: AgentSession, wait_until: WaitUntil) -> int:
    def pid() -> int | None:
        session.refresh_from_db()
        return session.pid

    found = wait_until(pid)
    assert found is not None
    return found


def gone(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(pid) for pid in pids)


def test_program_works_and_its_tasks_run_again_when_it_dies(
    start: Start, project: Project, wait_until: WaitUntil, tmp_path: Path
) -> None:
    host = start()
    first = host.ready("prog-1")
    pid = pid_of(first, wait_until)
    mark = tmp_path / "mark"
    task = submit(project, mark=str(mark), seconds=1.0)
    wait_until(lambda: is_running(task) and mark.exists())
    os.kill(pid, signal.SIGKILL)
    second = host.next_session("prog-1", first)
    wait_until(lambda: is_done(task))
    first.refresh_from_db()
    assert first.end_reason == "it died: SIGKILL"
    assert (task.attempt, task.losses) == (1, 1)
    assert mark.read_text().split() == [str(pid), str(pid_of(second, wait_until))]
    assert host.agent("prog-1").restarts == 1


def test_key_of_a_program_is_for_its_own_work_and_ends_with_it(
    start: Start, server: Server, project: Project, wait_until: WaitUntil
) -> None:
    host = start()
    first = host.ready("prog-1")
    pid = pid_of(first, wait_until)
    text = psutil.Process(pid).environ()["OPSCORE_API_KEY"]
    other = registry.register(project, name="other", kind="remote", capabilities=["prog"])[0]
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {text}"}) as http:
        own = {"name": "prog-1", "kind": "process", "capabilities": ["prog"]}
        assert http.post("/agents", json=own).json()["name"] == "prog-1"
        assert http.post("/agents", json={**own, "capabilities": ["x"]}).status_code == 400
        assert http.post("/agents", json={**own, "name": "other"}).status_code == 403
        assert http.post(f"/agents/{other.pk}/sessions", json={}).status_code == 409
        # Beginning twice is harmless, and still the same session.
        again = http.post("/agents/prog-1/sessions", json={})
        assert again.json()["session_id"] == str(first.pk)
        for method, path in (("GET", "/agents"), ("GET", "/tasks"), ("POST", "/tasks")):
            assert http.request(method, path).status_code == 403
        os.kill(pid, signal.SIGKILL)
        host.next_session("prog-1", first)
        assert http.post("/agents/prog-1/sessions", json={}).status_code == 401
    assert not ApiKey.objects.filter(session_id=first.pk).exists()


def test_key_of_one_program_does_not_speak_for_another(
    start: Start, server: Server, project: Project, wait_until: WaitUntil
) -> None:
    host = start("replicas: 2")
    first, second = host.ready("prog-1"), host.ready("prog-2")
    text = psutil.Process(pid_of(first, wait_until)).environ()["OPSCORE_API_KEY"]
    task = submit(project, seconds=60)
    wait_until(lambda: is_running(task))
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {text}"}) as http:
        assert http.delete(f"/sessions/{second.pk}").status_code == 403
        assert http.post(f"/sessions/{second.pk}/claim", json={}).status_code == 403
        assert http.post(f"/sessions/{second.pk}/heartbeat", json={}).status_code == 403
        if task.session_id == first.pk:
            # Now it is somebody else's.
            task = submit(project, seconds=60)
            wait_until(lambda: is_running(task))
        assert task.session_id == second.pk
        report = {"fence": task.fence, "status": "completed"}
        assert http.post(f"/tasks/{task.pk}/report", json=report).status_code == 409
        log = {"fence": task.fence, "lines": ["x"]}
        assert http.post(f"/tasks/{task.pk}/logs", json=log).status_code == 409
    task.refresh_from_db()
    assert task.status == "running"
    host.process.send_signal(signal.SIGTERM)


def test_drain_finishes_what_runs_and_takes_nothing_new(
    start: Start, project: Project, wait_until: WaitUntil
) -> None:
    # The program knows nothing of SIGTERM: draining is done for it.
    host = start()
    session = host.ready("prog-1")
    task = submit(project, seconds=1.5)
    wait_until(lambda: is_running(task))
    registry.drain(host.agent("prog-1"))
    wait_until(lambda: host.status("prog-1") == "draining")
    later = submit(project)
    wait_until(lambda: host.status("prog-1") == "terminated")
    later.refresh_from_db()
    assert is_done(task)
    assert (task.losses, later.status) == (0, "queued")
    session.refresh_from_db()
    assert session.end_reason.startswith("retired")


def test_program_that_ignores_sigterm_is_killed_after_its_time(
    start: Start, project: Project, wait_until: WaitUntil
) -> None:
    host = start(ROLE="deaf", OPSCORE_DRAIN_S="1")
    session = host.ready("prog-1")
    pid = pid_of(session, wait_until)
    registry.drain(host.agent("prog-1"))
    wait_until(lambda: host.status("prog-1") == "terminated")
    session.refresh_from_db()
    assert session.end_reason == "retired (SIGKILL)"
    assert gone([pid])


def test_forced_stop_kills_what_it_forked_too(
    start: Start, project: Project, wait_until: WaitUntil
) -> None:
    host = start(ROLE="forks", OPSCORE_DRAIN_S="60")
    session = host.ready("prog-1")
    leader = psutil.Process(pid_of(session, wait_until))
    wait_until(lambda: len(leader.children()) == 2)
    family = [leader.pid, *(child.pid for child in leader.children())]
    task = submit(project, seconds=60)
    wait_until(lambda: is_running(task))
    began = time.monotonic()
    registry.stop(host.agent("prog-1"))
    wait_until(lambda: gone(family))
    wait_until(lambda: host.status("prog-1") == "terminated")
    assert time.monotonic() - began < 10
    wait_until(lambda: not is_running(task))
    assert (task.status, task.losses) == ("queued", 1)


def test_program_that_does_not_begin_is_a_crash_and_is_tried_again(
    start: Start, wait_until: WaitUntil
) -> None:
    host = start("start_timeout: 300ms", ROLE="sleeps")
    # A web server that is away for some seconds must not take programs away for good.
    wait_until(lambda: host.status("prog-1") and host.agent("prog-1").restarts > 5, 60)
    assert host.status("prog-1") != "error"
    ended = AgentSession.objects.filter(agent__name="prog-1", ended_at__isnull=False)
    reasons = set(ended.values_list("end_reason", flat=True))
    assert reasons == {"it has not begun its session within 0.3 s"}
    assert "I shall never begin" in host.log("prog-1")


def test_program_that_exits_at_once_is_a_crash(start: Start, wait_until: WaitUntil) -> None:
    host = start(ROLE="exits")
    wait_until(lambda: host.status("prog-1") == "restarting", 40)
    assert host.agent("prog-1").reason == "it ended by itself with exit code 0"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("[no-such-program]", "there is no program 'no-such-program' (searched in the folder"),
        ("[conftest.py]", "is not executable; try: chmod +x"),
    ],
)
def test_program_that_cannot_be_started_is_given_up_at_once(
    start: Start, wait_until: WaitUntil, command: str, expected: str
) -> None:
    host = start(command=command)
    wait_until(lambda: host.status("prog-1") == "error", 30)
    agent = host.agent("prog-1")
    assert expected in agent.reason
    assert "Traceback" not in agent.reason
    assert agent.restarts == 0


def test_flood_of_output_is_bounded_and_its_end_is_shown(
    start: Start, server: Server, wait_until: WaitUntil
) -> None:
    host = start(ROLE="floods", MEGABYTES="1024")
    host.ready("prog-1", 90)
    folder = host.folder / "var" / "log" / "agents"
    assert sum(file.stat().st_size for file in folder.glob("prog-1.log*")) < 3 * 2**20
    with server.client() as http:
        answer = http.get("/agents/prog-1/logs", params={"lines": 2}).json()
    assert (answer["lines"], answer["fresh"]) == (["x" * 99, "the end"], True)


def test_bad_json_from_a_program_is_refused_and_loses_nothing(
    start: Start, project: Project, wait_until: WaitUntil
) -> None:
    host = start()
    host.ready("prog-1")
    task = submit(project, bad=True)
    wait_until(lambda: is_done(task))
    wait_until(lambda: "bad report: 400" in host.log("prog-1"))
    assert host.agent("prog-1").restarts == 0


def test_memory_limit_ends_a_program_with_a_clear_reason(
    start: Start, project: Project, wait_until: WaitUntil
) -> None:
    host = start("limits: {memory: 256MiB, open_files: 256}")
    first = host.ready("prog-1")
    submit(project, eat=2**30)
    host.next_session("prog-1", first)
    first.refresh_from_db()
    assert "it ran into its memory limit of 256 MiB (limits.memory)" in first.end_reason


def test_cpu_limit_ends_a_program_with_a_clear_reason(start: Start, wait_until: WaitUntil) -> None:
    host = start("limits: {cpu_time: 1s}", ROLE="burns")
    wait_until(lambda: host.agent("prog-1").restarts > 0 if host.status("prog-1") else None, 40)
    ended = AgentSession.objects.filter(agent__name="prog-1", ended_at__isnull=False).first()
    assert ended is not None
    assert ended.end_reason == "it died (SIGXCPU): it used up its CPU time, 1 s (limits.cpu_time)"


@pytest.mark.parametrize("rule", ["max_tasks: 2", "max_age: 1s", "max_memory: 1MiB"])
def test_recycled_program_is_replaced_without_a_loss(
    start: Start, project: Project, wait_until: WaitUntil, rule: str
) -> None:
    host = start(f"recycle: {{{rule}}}")
    first = host.ready("prog-1")
    tasks = [submit(project, seconds=0.2) for _ in range(5)]
    second = host.next_session("prog-1", first)
    wait_until(lambda: all(is_done(task) for task in tasks), 40)
    assert [task.losses for task in tasks] == [0] * 5
    first.refresh_from_db()
    assert first.end_reason.startswith("recycled")
    assert second.generation == first.generation
    agent = host.agent("prog-1")
    assert agent.restarts == 0


def test_killed_supervisor_leaves_no_program_and_its_successor_starts_one(
    start: Start, project: Project, wait_until: WaitUntil
) -> None:
    host = start(ROLE="forks")
    first = host.ready("prog-1")
    pid_of(first, wait_until)
    wait_until(lambda: sum("sleep" in process.name() for process in host.descendants()) == 2)
    below = host.descendants()
    zygote = psutil.Process(host.process.pid).children()[0]
    # Both at once: nobody is left who could end what the program forked.
    zygote.suspend()
    host.stop(signal.SIGKILL)
    zygote.kill()
    task = submit(project)
    host.start_again()
    host.next_session("prog-1", first)
    assert psutil.wait_procs(below, timeout=10)[1] == []
    wait_until(lambda: is_done(task))
    alive = [p for p in host.descendants() if "program.py" in " ".join(p.cmdline())]
    assert len(alive) == 1


def test_usage_is_sampled_and_shown(start: Start, server: Server, wait_until: WaitUntil) -> None:
    host = start(OPSCORE_SESSION_TTL_S="3")
    host.ready("prog-1")
    with server.client() as http:

        def used() -> Any:
            return http.get("/agents/prog-1").json()["usage"]

        usage = wait_until(used)
        assert 5 * 2**20 < usage["memory_bytes"] < 300 * 2**20
        registry.stop(host.agent("prog-1"))
        wait_until(lambda: used() is None)


def test_events_of_a_program_tell_its_life(start: Start, wait_until: WaitUntil) -> None:
    host = start()
    session = host.ready("prog-1")
    registry.restart(host.agent("prog-1"))
    host.next_session("prog-1", session)
    kinds = list(
        Event.objects.filter(agent_id=session.agent_id)
        .order_by("id")
        .values_list("kind", flat=True)
    )
    assert kinds == [
        "agent.registered",
        "agent.active",
        "agent.restart_requested",
        "agent.draining",
        "agent.restarting",
        "agent.active",
    ]
    assert Agent.objects.get(pk=session.agent_id).generation == 2


def test_program_that_offers_more_than_its_spec_is_in_error_at_once_and_says_why(
    start: Start, wait_until: WaitUntil
) -> None:
    code = f"import sys; sys.path.insert(0, '{ROOT}'); from opscore_sdk import Agent; a = Agent(); "
    code += "a.task('zzz')(id); a.run()"
    host = start(command=f'[python, -c, "{code}"]')
    wait_until(lambda: host.status("prog-1") == "error", 40)
    agent = Agent.objects.get(name="prog-1")
    assert agent.reason.splitlines()[-1].endswith(
        "This agent cannot be registered: capabilities: the spec 'prog' does not have: zzz"
    )
    assert AgentSession.objects.filter(agent=agent).count() == 1
    host.stop(signal.SIGINT)
