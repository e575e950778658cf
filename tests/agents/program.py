"""A small agent in plain Python that speaks the executor protocol; what it does is in ROLE."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import httpx

ROLE = os.environ.get("ROLE", "")
NAME = os.environ["OPSCORE_AGENT_NAME"]
API = httpx.Client(
    base_url=os.environ["OPSCORE_API_URL"] + "/api/v1",
    headers={"Authorization": f"Bearer {os.environ['OPSCORE_API_KEY']}"},
    timeout=40,
)


def begin() -> str:
    answer = API.post(f"/agents/{NAME}/sessions", json={})
    answer.raise_for_status()
    return str(answer.json()["session_id"])


def serve(session: str) -> None:
    while True:
        answer = API.post(f"/sessions/{session}/claim", json={"limit": 1, "wait_s": 2})
        if answer.status_code != 200:
            sys.exit(f"claim: {answer.status_code} {answer.text}")
        for task in answer.json()["tasks"]:
            work(session, task)
        API.post(f"/sessions/{session}/heartbeat", json={"tasks": []})


def work(session: str, task: dict[str, Any]) -> None:
    inputs = task["inputs"]
    print("working on", task["id"], flush=True)
    if inputs.get("mark"):
        with open(inputs["mark"], "a") as file:
            file.write(f"{os.getpid()}\n")
    if inputs.get("bad"):
        sent = API.post(f"/tasks/{task['id']}/report", content=b"{not json")
        print("bad report:", sent.status_code, flush=True)
    if inputs.get("eat"):
        held = bytearray(inputs["eat"])
        print(len(held), flush=True)
    give_up_at = time.monotonic() + inputs.get("seconds", 0)
    while time.monotonic() < give_up_at:
        time.sleep(0.05)
        held_tasks = [{"id": task["id"], "fence": task["fence"]}]
        API.post(f"/sessions/{session}/heartbeat", json={"tasks": held_tasks})
    report = {"fence": task["fence"], "status": "completed", "result": os.getpid()}
    API.post(f"/tasks/{task['id']}/report", json=report)


def sleep() -> None:
    print("I shall never begin", flush=True)
    time.sleep(600)


def flood() -> None:
    for _ in range(int(os.environ["MEGABYTES"])):
        os.write(1, (b"x" * 99 + b"\n") * 10_000)
    os.write(1, b"the end\n")


def burn() -> None:
    while True:
        pass


def fork() -> None:
    # One in our process group, one in a session of its own.
    for start in (["sleep", "600"], ["setsid", "sleep", "600"]):
        subprocess.Popen(start)


ROLES = {
    "": lambda: None,
    "exits": lambda: sys.exit(0),
    "sleeps": sleep,
    "floods": flood,
    "burns": burn,
    "deaf": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "forks": fork,
}
ROLES[ROLE]()
serve(begin())
