"""Applies the autoscale rules of a host's specs: asks how long tasks wait, keeps the new size."""

from __future__ import annotations

from collections.abc import Mapping

from agents import autoscale, pools, workload
from agents.models import Agent
from agents.specs import Spec
from opscore.logs import get_logger
from opscore.models import Project

log = get_logger(__name__)
#: How often the rules are asked.
STEP_S = 1.0


class Autoscaler:
    """The pools of one host that have a rule, with what their rules remember."""

    def __init__(self, specs: Mapping[str, Spec]) -> None:
        self._specs = specs
        self._memory: dict[str, autoscale.Size] = {}
        self._next = 0.0

    def step(self, project: Project, host: str, now: float) -> None:
        """Ask every rule in force, once a second: those of operators and those of the file."""
        if not self._specs or now < self._next:
            return
        self._next = now + STEP_S
        plans = pools.plans(project, host, self._specs)
        self._memory = {name: kept for name, kept in self._memory.items() if plans[name].rule}
        for name, plan in plans.items():
            if plan.rule is None:
                continue
            spec = self._specs[name]
            before = self._memory.get(name, autoscale.Size(plan.agents))
            after = autoscale.decide(plan.rule, before, _pressure(project, host, spec), now)
            self._memory[name] = after
            if after.agents != before.agents:
                pools.write_scaled(project, host, name, after.agents)
                log.info("pool.autoscaled", spec=name, was=before.agents, agents=after.agents)


def _pressure(project: Project, host: str, spec: Spec) -> autoscale.Pressure:
    agents = list(Agent.objects.filter(project=project, host=host, spec=spec.name))
    busy = sum(1 for tasks in workload.running(agents).values() if tasks)
    waited_s = workload.oldest_wait(project.pk, spec.capabilities, spec.labels)
    return autoscale.Pressure(waited_s=waited_s, busy=busy)
