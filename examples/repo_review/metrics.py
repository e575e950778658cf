"""Size and complexity of every source file, bounded: large, binary and generated files are skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from examples.repo_review.bounded import fit, paced
from examples.repo_review.indentation import code_lines, complexity
from examples.repo_review.languages import is_foreign, is_source, language_of
from examples.repo_review.python_code import FunctionFacts, PythonFacts, measure
from examples.repo_review.repository import Repository, Skipped

Json = dict[str, Any]

MAX_FILES_BYTES = 100_000
MAX_FUNCTIONS_BYTES = 60_000
COMPLEX = 10
"""A function above this cyclomatic complexity is counted as complex (McCabe's own limit)."""


class Cancelled(Exception):  # noqa: N818 - not an error: somebody asked for it
    """The task was cancelled in the middle."""


@dataclass
class Survey:
    """What was found so far."""

    files: list[Json] = field(default_factory=list)
    functions: list[Json] = field(default_factory=list)
    unparsed: list[Json] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    public: int = 0
    documented: int = 0

    def add(self, repository: Repository, name: str) -> None:
        """Measure one file."""
        content = repository.read_code(name)
        if isinstance(content, Skipped):
            self.skipped[content.reason] += 1
            return
        lines = code_lines(content.decode("utf-8", "replace"))
        kind = "source" if is_source(name) else "test"
        self.lines[kind] += len(lines)
        if kind == "source":
            self.files.append(self._measured(name, content, lines))

    def _measured(self, name: str, content: bytes, lines: list[str]) -> Json:
        row: Json = {"path": name, "lines": len(lines)}
        facts = self._python(name, content) if language_of(name) == "Python" else None
        if facts is None:
            return {**row, "complexity": complexity(lines), "approximate": True}
        self.functions += [_function_row(name, found) for found in facts.functions]
        self.public += facts.public
        self.documented += facts.documented
        longest = max((found.lines for found in facts.functions), default=0)
        return {
            **row,
            "complexity": facts.complexity,
            "longest": longest,
        }

    def _python(self, name: str, content: bytes) -> PythonFacts | None:
        try:
            return measure(content)
        except SyntaxError as error:
            self.unparsed.append({"path": name, "line": error.lineno, "reason": error.msg})
            return None


def _function_row(path: str, found: FunctionFacts) -> Json:
    return {"path": path, **asdict(found)}


def survey(
    root: str, slow_motion_s: float = 0, cancelled: Callable[[], bool] = lambda: False
) -> Json:
    """Measure the work tree at `root`; the most complex files and functions come first.

    Raises Cancelled soon after `cancelled()` turns true.
    """
    repository = Repository(Path(root))
    found = Survey()
    names = [name for name in repository.files() if language_of(name)]
    own = [name for name in names if not is_foreign(name)]
    found.skipped["vendored"] = len(names) - len(own)
    for name in paced(own, slow_motion_s):
        if cancelled():
            raise Cancelled
        found.add(repository, name)
    return _summary(found)


def _summary(found: Survey) -> Json:
    files = sorted(found.files, key=lambda row: (-row["complexity"], -row["lines"], row["path"]))
    functions = sorted(
        found.functions,
        key=lambda row: (-row["complexity"], -row["lines"], row["path"], row["line"]),
    )
    return {
        "files_total": len(files),
        "files": fit(files, MAX_FILES_BYTES),
        "functions_total": len(functions),
        "functions_complex": sum(row["complexity"] > COMPLEX for row in functions),
        "functions": fit(functions, MAX_FUNCTIONS_BYTES),
        "lines_source": found.lines["source"],
        "lines_test": found.lines["test"],
        "public": found.public,
        "documented": found.documented,
        "unparsed_total": len(found.unparsed),
        "unparsed": found.unparsed[:30],
        "skipped": {reason: count for reason, count in sorted(found.skipped.items()) if count},
    }
