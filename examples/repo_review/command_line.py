"""The contract of a `command` agent: JSON on stdin, JSON on stdout, the log on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from examples.repo_review.repository import RepositoryError

Json = dict[str, Any]


def say(text: str) -> None:
    """Write one line to the log of the task."""
    print(text, file=sys.stderr, flush=True)


def serve(analyse: Callable[..., Json]) -> None:
    """Answer one task: the inputs are the arguments; a failure is one sentence and exit code 1."""
    try:
        result = analyse(**json.load(sys.stdin))
    except RepositoryError as error:
        sys.exit(str(error))
    json.dump(result, sys.stdout)
