"""What the `worker` agents of this example do: each handler hands its task to a plain function."""

from __future__ import annotations

from typing import Any

from agents.handlers import Context, HandlerError, handler
from examples.repo_review.closeup import look
from examples.repo_review.dive import dive
from examples.repo_review.history import mine
from examples.repo_review.inventory import inventory
from examples.repo_review.metrics import Cancelled, survey
from examples.repo_review.ownership import ownership
from examples.repo_review.ranking import rank_functions
from examples.repo_review.report import write
from examples.repo_review.repository import RepositoryError
from examples.repo_review.scan import scan

Json = dict[str, Any]


@handler("repo_scan")
def repo_scan(task: Context) -> Json:
    """`repo` (a path on this host) in; root, head commit and languages out."""
    try:
        found = scan(task.inputs["repo"])
    except RepositoryError as error:
        # No second try makes a repository out of a folder.
        raise HandlerError(str(error), type="bad_repository", retryable=False) from None
    task.log(f"{found['files']} files, {found['source_files']} of them source code")
    return found


@handler("git_history")
def git_history(task: Context) -> Json:
    """`root`, `head`, `commits`, `slow_motion_s` in; the churn of each file out."""
    found = mine(**task.inputs)
    task.log(f"{found['commits']} commits by {found['author_count']} authors")
    return found


@handler("ownership")
def find_owners(task: Context) -> Json:
    """`history`, `top` in; bus factor, knowledge islands and orphans out."""
    found = ownership(**task.inputs)
    task.log(f"bus factor {found['bus_factor']}, {found['island_count']} knowledge islands")
    return found


@handler("code_metrics")
def code_metrics(task: Context) -> Json:
    """`root`, `slow_motion_s` in; complexity of files and functions out."""
    try:
        found = survey(**task.inputs, cancelled=task.cancelled)
    except Cancelled:
        raise HandlerError("The task was cancelled.", type="cancelled", retryable=False) from None
    task.log(f"{found['files_total']} files, {found['functions_total']} functions measured")
    return found


@handler("function_ranking")
def function_ranking(task: Context) -> Json:
    """`metrics`, `top` in; the riskiest functions out."""
    return rank_functions(**task.inputs)


@handler("test_inventory")
def find_tests(task: Context) -> Json:
    """`root` in; tests found and files that seem untested out."""
    found = inventory(**task.inputs)
    task.log(f"{found['test_functions']} tests in {found['test_files']} files")
    return found


@handler("file_closeup")
def file_closeup(task: Context) -> Json:
    """`root`, `head`, `path`, `commits` in; one file's functions, changes and authors out."""
    found = look(**task.inputs)
    task.log(f"{found['path']}: {found['function_count']} functions, {found['changes']} changes")
    return found


@handler("deep_dive")
def deep_dive(task: Context) -> Json:
    """`root`, `head`, `path`, `commits` in; what changes in a file and together with it out."""
    found = dive(**task.inputs)
    task.log(f"{found['path']}: {len(found['partners'])} files change with it")
    return found


@handler("report")
def report(task: Context) -> Json:
    """The results of all other steps in; the report as Markdown and its summary out."""
    return write(task.inputs)
