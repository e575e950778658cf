"""An executor that keeps the protocol, but for the one thing that it is told to do wrong."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from typing import Any

import httpx

WRONG = sys.argv[1]
NAME = os.environ["OPSCORE_AGENT_NAME"]
HTTP = httpx.Client(
    base_url=f"{os.environ['OPSCORE_API_URL']}/api/v1",
    headers={"Authorization": f"Bearer {os.environ['OPSCORE_API_KEY']}"},
    timeout=60,
)
stopping = threading.Event()
held: dict[str, int] = {}
unwanted: set[str] = set()
session: dict[str, Any] = {}


def post(path: str, body: Any) -> httpx.Response:
    """Ask until the platform is there."""
    while True:
        with contextlib.suppress(httpx.TransportError):
            answer = HTTP.post(path, json=body)
            if answer.status_code < 500 or WRONG == "restart":
                return answer
        time.sleep(0.1)


def begin() -> None:
    """Begin a session."""
    session.update(post(f"/agents/{NAME}/sessions", {}).json())


def beat() -> None:
    """Beat for ever."""
    while WRONG != "heartbeats":
        time.sleep(session["heartbeat_s"] / 2)
        tasks = [{"id": key, "fence": fence} for key, fence in list(held.items())]
        answer = post(f"/sessions/{session['session_id']}/heartbeat", {"tasks": tasks})
        if answer.status_code == 409 and WRONG != "new-session":
            unwanted.update(held)
            begin()
        elif answer.status_code == 200 and WRONG != "cancel":
            unwanted.update(answer.json()["cancelled"])


def work(task: dict[str, Any]) -> None:
    """Do a task."""
    held[task["id"]] = task["fence"]
    seconds = 0 if WRONG == "hasty" else task["inputs"].get("seconds", 0)
    until = time.monotonic() + seconds
    while time.monotonic() < until and task["id"] not in unwanted:
        time.sleep(0.02)
        if stopping.is_set() and WRONG == "terminates":
            os._exit(0)
    report = {"fence": task["fence"], "status": "completed", "result": task["inputs"].get("text")}
    if WRONG == "bad-input":
        report["result"] = task["inputs"]["text"]
    path = f"/tasks/{task['id']}/report"
    answer = post(path, report)
    while WRONG == "fencing" and answer.status_code == 409:
        time.sleep(0.1)
        answer = post(path, report)
    if WRONG == "each-once":
        post(path, report)
    held.pop(task["id"], None)
    unwanted.discard(task["id"])


def speak_oddly(own: str) -> None:
    """Send bodies of every wrong shape."""
    bodies: tuple[Any, ...] = ([], "x", 1, {"tasks": 1}, {"tasks": [1]}, {"tasks": [{"id": 1}]})
    for odd in bodies:
        post(f"{own}/heartbeat", odd)
        post(f"{own}/claim", odd)


def main() -> None:
    """Claim until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    post("/agents", {"name": NAME, "kind": "remote", "capabilities": ["shout"]})
    begin()
    if WRONG == "odd":
        speak_oddly(f"/sessions/{session['session_id']}")
    threading.Thread(target=beat, daemon=True).start()
    wait_s = 0 if WRONG == "claims" else 0.5
    while not stopping.is_set() or WRONG == "leaves":
        mine = session["session_id"]
        answer = post(f"/sessions/{mine}/claim", {"wait_s": wait_s})
        if answer.status_code == 409 and WRONG != "new-session" and session["session_id"] == mine:
            begin()
        for task in answer.json().get("tasks", []):
            work(task)
    HTTP.delete(f"/sessions/{session['session_id']}")


main()
