"""What a process has done that its supervisor must not let pass. Pure."""

from __future__ import annotations

from agents.specs import Spec
from agents.supervisor.children import Child
from opscore.exits import describe
from opscore.sizes import shown_size


def of(child: Child, spec: Spec | None, memory: int, ttl_s: float, now: float) -> str:
    """Return why a process must be killed for something of its own; '': it must not.

    `memory` is what it uses with all that it started, in bytes.
    """
    if not child.agent.polls:
        return f"silent for {ttl_s:g} s" if now - child.heard > ttl_s else ""
    if spec is None:
        return ""
    if not child.ready and now - child.started > spec.start_timeout_s:
        return f"it has not begun its session within {spec.start_timeout_s:g} s"
    most = spec.limits.memory
    if most is not None and memory > most:
        return (
            f"it used {shown_size(memory)} of memory, more than limits.memory: {shown_size(most)}"
        )
    return ""


def limit_hit(spec: Spec, code: int, cpu_s: float, last_lines: str) -> str:
    """Return which limit ended a process, with its exit code; '': none did."""
    hit = spec.limits.explain(code, cpu_s, last_lines)
    return hit and f"it died ({describe(code)}): {hit}"
