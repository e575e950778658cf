"""What the API does: one talk for each call, shared by both clients."""

from opscore_sdk.calls import agents, executor, runs, schedules, tasks, workflows

__all__ = ["agents", "executor", "runs", "schedules", "tasks", "workflows"]
