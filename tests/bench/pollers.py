"""Measures agents that poll: what 200 idle ones cost, and how fast a task reaches one of them.

Run it with `python -m tests.bench.pollers [AGENTS] [SECONDS]`. The agents are those of the SDK, all in
this process; what is measured is the web server and PostgreSQL, processes of their own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil

from opscore_sdk import Agent, AsyncClient, OpsCoreError
from tests.bench.platform import platform

AGENTS = 200
IDLE_S = 60.0
TASKS = 100
#: Between two tasks, so that each meets an idle platform.
PAUSE_S = 0.1


def main() -> None:
    """Measure once and print."""
    agents = int(sys.argv[1]) if len(sys.argv) > 1 else AGENTS
    idle_s = float(sys.argv[2]) if len(sys.argv) > 2 else IDLE_S
    with platform():
        key = _prepared()
        with _web() as web:
            process, url = web
            asyncio.run(_measure(url, key, process, agents, idle_s))


def _prepared() -> str:
    from django.core.management import call_command
    from django.db import connections

    from opscore import keys
    from opscore.models import Project

    call_command("migrate", verbosity=0)
    _, key = keys.create(Project.objects.get(slug="default"), "bench", ["admin"])
    connections.close_all()
    return key


@contextmanager
def _web() -> Iterator[tuple[psutil.Process, str]]:
    from opscore.embedded.children import free_port

    port = free_port("127.0.0.1")
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--port", str(port)]
    process = subprocess.Popen([*command, "--log-level", "error", "opscore.asgi:application"])
    try:
        yield psutil.Process(process.pid), f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        # It answers what still waits first.
        process.wait(60)


async def _measure(url: str, key: str, web: psutil.Process, count: int, idle_s: float) -> None:
    arrived: dict[str, float] = {}
    async with AsyncClient(url, key, timeout_s=60, max_connections=count * 2) as client:
        while True:
            try:
                await client.health()
                break
            except OpsCoreError:
                await asyncio.sleep(0.1)
        agents = [_agent(number, arrived) for number in range(count)]
        lives = [asyncio.create_task(one.run_async(client, catch_signals=False)) for one in agents]
        while len(await client.agents(status="active", limit=1000)) < count:
            await asyncio.sleep(0.5)
        # The first claims of all begin together and end together: between two of these bursts
        # nothing happens, so whole rounds are counted.
        await _idle(web, count, idle_s)
        for capability in ("shared", "own-0"):
            print(f"a task for {capability!r}, sent until it is in its agent, ms:", end=" ")
            _print([await _delivered(client, capability, arrived) for _ in range(TASKS)])
        for one in agents:
            one.stop()
        await asyncio.gather(*lives)


def _agent(number: int, arrived: dict[str, float]) -> Agent:
    agent = Agent(f"poller-{number}")

    async def note(inputs: dict[str, str]) -> None:
        arrived[inputs["mark"]] = time.perf_counter()

    agent.task("shared")(note)
    agent.task(f"own-{number}")(note)
    return agent


async def _idle(web: psutil.Process, count: int, idle_s: float) -> None:
    parts = {"web server": [web, *web.children(recursive=True)], "PostgreSQL": _postgres()}
    before = {name: _cpu_s(processes) for name, processes in parts.items()}
    began = time.monotonic()
    await asyncio.sleep(idle_s)
    spent_s = time.monotonic() - began
    used = {name: (_cpu_s(parts[name]) - before[name]) / spent_s * 100 for name in parts}
    each = ", ".join(f"{name} {share:.1f} %" for name, share in used.items())
    print(f"{count} idle agents: {sum(used.values()):.1f} % of a core ({each})", flush=True)


async def _delivered(client: AsyncClient, capability: str, arrived: dict[str, float]) -> float:
    await asyncio.sleep(PAUSE_S)
    mark = f"{capability}-{len(arrived)}"
    sent = time.perf_counter()
    await client.submit(capability, inputs={"mark": mark})
    while mark not in arrived:
        await asyncio.sleep(0.001)
    return (arrived[mark] - sent) * 1000


def _postgres() -> list[psutil.Process]:
    mine = psutil.Process(os.getpid()).children(recursive=True)
    return [process for process in mine if process.name().startswith("postgres")]


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    """Add up processor seconds; connections that ended meanwhile are too short to count."""
    spent = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        spent += times.user + times.system
    return spent


def _print(values: list[float]) -> None:
    ordered = sorted(values)
    p95 = ordered[int(len(ordered) * 0.95) - 1]
    median = statistics.median(ordered)
    print(
        f"best {ordered[0]:.1f}, p50 {median:.1f}, p95 {p95:.1f}, worst {ordered[-1]:.1f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
