"""What the controller tells the zygote to start: one agent, described whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from agents.specs import Spec

#: A log that is longer is moved to `.log.1` when its agent starts the next time.
MAX_LOG_BYTES = 1024 * 1024
_TAIL_BYTES = 16 * 1024
LAST_LINES = 50


@dataclass(frozen=True)
class Order:
    """Everything that a child needs to become this agent; it asks the database nothing."""

    session_id: str
    agent_id: str
    agent: str
    host: str
    spec: dict[str, Any] = field(default_factory=dict)
    """`agents.specs.Spec` as a dict; empty for the platform's own agent."""
    capabilities: list[str] = field(default_factory=list)
    queues: list[str] = field(default_factory=list)
    paused: bool = False
    """It begins without taking anything from its queues."""
    log: str = ""
    """Path of the file that takes its output."""
    beat_s: float = 5.0

    def as_dict(self) -> dict[str, Any]:
        """Return what goes over the wire."""
        return asdict(self)

    @property
    def session(self) -> UUID:
        """The session's id."""
        return UUID(self.session_id)


def spec_of(order: Order) -> Spec:
    """Return the spec as a value again."""
    return Spec(**order.spec)


def log_path(var_dir: Path, project: str, agent: str) -> Path:
    """Return where an agent's output goes: `log/agents/<name>.log` of the var folder."""
    folder = var_dir / "log" / "agents"
    return (folder if project == "default" else folder / project) / f"{agent}.log"


def rotate(path: Path) -> None:
    """Make the folder, and room in the file: a long log becomes `.log.1`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        too_long = path.stat().st_size > MAX_LOG_BYTES
    except FileNotFoundError:
        return
    if too_long:
        path.replace(path.with_suffix(".log.1"))


def last_lines(path: Path, count: int = LAST_LINES) -> str:
    """Return the end of a log, at most `count` lines; '' when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            tail = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(tail.replace("\0", "").splitlines()[-count:])
