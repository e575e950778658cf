"""The agent `librarian`, of kind `process`: a program of its own that stays, with the SDK."""

from __future__ import annotations

from typing import Any

from examples.repo_review.dependencies import dependencies
from examples.repo_review.repository import RepositoryError
from opscore_sdk import Agent, Context, TaskError

#: Its name, its key and the platform's address come from the environment.
agent = Agent()


@agent.task("dependencies")
def find_dependencies(inputs: dict[str, Any], context: Context) -> dict[str, Any]:
    """`root` in; what is declared, what floats, and where imports disagree out."""
    try:
        return dependencies(**inputs, say=context.log)
    except RepositoryError as error:
        # No second try makes a repository out of a folder.
        raise TaskError("bad_repository", str(error), retryable=False) from None


if __name__ == "__main__":
    agent.run()
