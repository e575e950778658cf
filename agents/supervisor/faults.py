"""What a process has done that its supervisor must not let pass. Pure."""

from __future__ import annotations

from agents.specs import Spec
from agents.supervisor import policy
from agents.supervisor.children import Child
from opscore.sizes import shown_size


def of_worker(child: Child, ttl_s: float, now: float) -> str:
    """Return why a worker must be killed; '': it must not."""
    return f"silent for {ttl_s:g} s" if now - child.heard > ttl_s else ""


def of_program(child: Child, spec: Spec, now: float) -> str:
    """Return why a program that did not begin its session must be killed; '': it must not."""
    if child.ready or now - child.started <= spec.start_timeout_s:
        return ""
    return f"it has not begun its session within {spec.start_timeout_s:g} s"


def of_memory(spec: Spec, memory: int) -> str:
    """Return why a program must be killed that uses so many bytes, with all that it started."""
    most = spec.limits.memory
    if spec.kind != "process" or most is None or memory <= most:
        return ""
    return f"it used {shown_size(memory)} of memory, more than limits.memory: {shown_size(most)}"


def limit_hit(spec: Spec, code: int, cpu_s: float, last_lines: str) -> str:
    """Return which limit ended a process, with its exit code; '': none did."""
    hit = spec.limits.explain(code, cpu_s, last_lines)
    return hit and f"it died ({policy.describe(code)}): {hit}"
