"""The runs inside a run: blocks, and workflows that its tasks call."""

from __future__ import annotations

from opscore_sdk.client import Client
from opscore_sdk.errors import OpsCoreError
from opscore_sdk.wire import Run

#: Runs of one run that are looked at; of more their tasks alone are shown.
_MOST = 50
_DEEPEST = 4


class Inside:
    """Looks for what a run has started; what has ended is asked for once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._ended: dict[str, Run] = {}

    def __call__(self, run: Run) -> dict[str, Run]:
        """Return the id of a task -> the latest run that it started, at all depths.

        This is for show: what cannot be had now is left out.
        """
        try:
            return self._started_by(run, 1)
        except OpsCoreError:
            return {}

    def _started_by(self, run: Run, depth: int) -> dict[str, Run]:
        if depth > _DEEPEST or not any(task.starts_runs for task in run.tasks):
            return {}
        found: dict[str, Run] = {}
        for row in self._client.runs(parent=run.id, limit=_MOST):
            parent = str(row.raw.get("parent_task_id"))
            # Newest first: of a block that is repeated the last round counts.
            if parent not in found:
                found[parent] = self._whole(row)
        below = [self._started_by(one, depth + 1) for one in found.values()]
        for inner in below:
            found |= inner
        return found

    def _whole(self, row: Run) -> Run:
        known = self._ended.get(row.id)
        if known is None:
            known = self._client.run(row.id)
            if known.has_ended:
                self._ended[row.id] = known
        return known
