"""The agent `analyst`, of kind `process`: a program of its own that stays, with the SDK."""

from __future__ import annotations

from typing import Any

from examples.repo_review.ranking import rank_files
from opscore_sdk import Agent, Context

#: Its name, its key and the platform's address come from the environment.
agent = Agent()


@agent.task("ranking")
def ranking(inputs: dict[str, Any], context: Context) -> dict[str, Any]:
    """`history`, `metrics`, `lint`, `tests`, `owners`, `top` in; the hot spots out."""
    found = rank_files(**inputs)
    context.log(f"{found['ranked']} files ranked")
    return found


if __name__ == "__main__":
    agent.run()
