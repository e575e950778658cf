"""What a definition says, as values; see `workflows.definition` for how to get one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tasks.flow import Concurrency, Flow
from tasks.graph import Graph, Node
from tasks.retries import RetryPolicy
from workflows.inputs import checked_inputs
from workflows.writing import (
    concurrency_said,
    flow_said,
    retry_said,
    timeouts_said,
    without_defaults,
)


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One entry of `tasks`."""

    key: str
    capability: str = ""
    needs: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """`with`: what the handler gets, expressions in it not yet evaluated."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout_s: float | None = None
    priority: int | None = None
    """0-9, 9 first; None: that of the run."""
    outputs: Mapping[str, Any] | None = None
    description: str = ""
    uses: str = "agent"
    """agent, wait, signal, approval, block, or workflow:<name>[@version]."""
    join: str = "all_success"
    flow: Flow = field(default_factory=Flow)
    """Without its `block`: that is `node()`'s work."""
    block: Block | None = None
    returns: Mapping[str, Any] | None = None
    """JSON Schema of the result (with `for_each`: of each item's)."""

    @property
    def executor(self) -> str:
        """Return `uses` without the name of a workflow."""
        return self.uses.partition(":")[0]

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as canonical JSON: durations in seconds, defaults left out."""
        return without_defaults(
            {
                "description": self.description,
                "uses": "" if self.uses in {"agent", "block"} else self.uses,
                "needs": list(self.needs),
                "join": "" if self.join == "all_success" else self.join,
                "capability": self.capability,
                "requires": list(self.requires),
                "with": dict(self.inputs),
                "retry": retry_said(self.retry),
                "timeout": timeouts_said(self.timeout_s, self.flow),
                "priority": self.priority,
            },
            {
                **(self.block.as_dict() if self.block else {"outputs": self.outputs}),
                **flow_said(self.flow),
                "returns": self.returns,
            },
        )

    def node(self) -> Node:
        """Return the task as the engine takes it."""
        flow = replace(self.flow, block=self.block.as_dict()) if self.block else self.flow
        return Node(
            key=self.key,
            capability=self.capability,
            requires=self.requires,
            needs=self.needs,
            inputs=self.inputs,
            retry=self.retry,
            timeout_s=self.timeout_s,
            priority=self.priority,
            outputs=self.outputs,
            uses=self.uses,
            join=self.join,
            flow=flow,
        )

    def demands(self, path: str) -> Iterator[Demand]:
        """Yield what it asks of agents; `path` is its own."""
        if self.capability:
            yield Demand(f"{path}.capability", self.capability, self.requires)
        for key, other in (("catch", self.flow.catch), ("undo", self.flow.undo)):
            if other and other.capability:
                yield Demand(f"{path}.{key}.capability", other.capability, other.requires)
        for task in self.block.tasks if self.block else ():
            yield from task.demands(f"{path}.tasks.{task.key}")

    def family(self) -> Iterator[TaskSpec]:
        """Yield the task and, where it is a block, all that are in it."""
        yield self
        for task in self.block.tasks if self.block else ():
            yield from task.family()


@dataclass(frozen=True, slots=True)
class Demand:
    """What a task asks of agents."""

    path: str
    capability: str
    requires: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """A definition inside a task: its tasks see only each other and the block's inputs."""

    tasks: tuple[TaskSpec, ...]
    outputs: Mapping[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the block as canonical JSON; `definition.block_of` reads it back, equal."""
        return without_defaults(
            {},
            {"tasks": {task.key: task.as_dict() for task in self.tasks}, "outputs": self.outputs},
        )

    def graph(self) -> Graph:
        """Return what the engine runs."""
        return Graph.of([task.node() for task in self.tasks], self.outputs)


@dataclass(frozen=True, slots=True)
class Definition:
    """A valid workflow definition."""

    name: str
    tasks: tuple[TaskSpec, ...]
    version: str = ""
    """The author's word for it; empty: the next number."""
    description: str = ""
    inputs: Mapping[str, Any] | None = None
    """JSON Schema of the inputs; None: anything goes."""
    outputs: Mapping[str, Any] | None = None
    priority: int | None = None
    fairness_key: str = ""
    """Whose work a run is that does not say; may read its inputs."""
    concurrency: Concurrency | None = None
    finally_: tuple[TaskSpec, ...] = ()
    """What is done when everything else has ended, however it ended."""

    def as_dict(self) -> dict[str, Any]:
        """Return the definition as canonical JSON; `from_data` reads it back, equal."""
        return without_defaults(
            {
                "name": self.name,
                "version": self.version,
                "description": self.description,
                "priority": self.priority,
                "fairness_key": self.fairness_key,
                "finally": {task.key: task.as_dict() for task in self.finally_},
            },
            {
                "inputs": self.inputs,
                "concurrency": self.concurrency and concurrency_said(self.concurrency),
                "tasks": {task.key: task.as_dict() for task in self.tasks},
                "outputs": self.outputs,
            },
        )

    def graph(self) -> Graph:
        """Return what the engine runs."""
        return Graph.of([task.node() for task in self.tasks], self.outputs, self.epilogue())

    def epilogue(self) -> tuple[Node, ...]:
        """Return the tasks of `finally`; they need only each other."""
        return tuple(task.node() for task in self.finally_)

    def demands(self) -> Iterator[Demand]:
        """Yield what is asked of agents anywhere."""
        for section, tasks in (("tasks", self.tasks), ("finally", self.finally_)):
            for task in tasks:
                yield from task.demands(f"{section}.{task.key}")

    def every_task(self) -> Iterator[TaskSpec]:
        """Yield all tasks, those of blocks and of `finally` too."""
        for task in (*self.tasks, *self.finally_):
            yield from task.family()

    def check_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the inputs of a run, defaults filled in; raises InvalidError with paths."""
        return checked_inputs(self.inputs, inputs)
