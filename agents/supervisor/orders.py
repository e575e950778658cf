"""What the controller tells the zygote to start: one agent, described whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from agents.specs import Spec

#: A log that would be longer is moved to `.log.1`.
MAX_LOG_BYTES = 1024 * 1024
LAST_LINES = 50


@dataclass(frozen=True)
class Order:
    """Everything that a child needs to become this agent; it asks the database nothing."""

    session_id: str
    agent_id: str
    agent: str
    host: str
    spec: dict[str, Any] = field(default_factory=dict)
    """`agents.specs.Spec.as_dict`; empty for the platform's own agent."""
    capabilities: list[str] = field(default_factory=list)
    queues: list[str] = field(default_factory=list)
    paused: bool = False
    """It begins without taking anything from its queues."""
    beat_s: float = 5.0
    api_url: str = ""
    """Kind `process`: where it finds the API."""
    api_key: str = field(default="", repr=False)
    """Kind `process`: a key for this session alone."""
    mark: str = ""
    """Says in the environment of all that it starts whose it is, should it leave it behind."""

    def as_dict(self) -> dict[str, Any]:
        """Return what goes over the wire."""
        return asdict(self)

    @property
    def session(self) -> UUID:
        """The session's id."""
        return UUID(self.session_id)


def spec_of(order: Order) -> Spec:
    """Return the spec as a value again."""
    return Spec.of_dict(order.spec)


def log_path(var_dir: Path, project: str, agent: str) -> Path:
    """Return where an agent's output goes: `log/agents/<name>.log` of the var folder."""
    folder = var_dir / "log" / "agents"
    return (folder if project == "default" else folder / project) / f"{agent}.log"


def last_lines(path: Path, count: int = LAST_LINES, most: int = 16 * 1024) -> str:
    """Return the end of a log: at most `count` lines of `most` bytes; '' when there is none."""
    tail = _end_of(path, most)
    if len(tail) < most:
        tail = _end_of(path.with_suffix(".log.1"), most - len(tail)) + tail
    text = tail.decode(errors="replace").replace("\0", "")
    return "\n".join(text.splitlines()[-count:])


def _end_of(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - most))
            return file.read(most)
    except OSError:
        return b""
