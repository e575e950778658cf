"""Tests found, and the source files that no test seems to touch."""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from examples.repo_review.bounded import fit
from examples.repo_review.languages import is_source, is_test, language_of
from examples.repo_review.repository import Repository, Skipped

Json = dict[str, Any]

MAX_BYTES = 60_000
_SUPPORT = frozenset({"__init__.py", "conftest.py"})
_TEST_MARKS = {
    "JavaScript": re.compile(rb"^\s*(?:it|test)(?:\.\w+)*\s*\(", re.MULTILINE),
    "TypeScript": re.compile(rb"^\s*(?:it|test)(?:\.\w+)*\s*\(", re.MULTILINE),
    "Go": re.compile(rb"^func Test\w*\(", re.MULTILINE),
    "Rust": re.compile(rb"^\s*#\[(?:\w+::)?test", re.MULTILINE),
    "Java": re.compile(rb"^\s*@(?:Parameterized)?Test\b", re.MULTILINE),
    "Kotlin": re.compile(rb"^\s*@(?:Parameterized)?Test\b", re.MULTILINE),
    "Ruby": re.compile(rb"^\s*(?:it|specify)\b|^\s*def test_", re.MULTILINE),
}
_DECORATION = re.compile(r"^(test|spec)[_.-]|[_.-]?(tests?|spec)$", re.IGNORECASE)
_JS_IMPORT = re.compile(r"""(?:from|require\(|import\(?)\s*['"](\.{1,2}/[^'"]+)['"]""")


def inventory(root: str) -> Json:
    """Count tests and name the source files without any, largest first.

    A file counts as tested when a test file is named after it or imports it: a hint
    where to look, not a measurement of coverage.
    """
    repository = Repository(Path(root))
    names = repository.code()
    tests = {name: _content(repository, name) for name in names if is_test(name)}
    sources = {name: _content(repository, name) for name in names if is_source(name)}
    # An empty `__init__`, a binary or a generated file needs no test.
    sizes = {name: content.count(b"\n") + 1 for name, content in sources.items() if content.strip()}
    evidence = Evidence.of(tests, sizes)
    untested = [
        name
        for name in sizes
        if not evidence.covers(name) and not _tests_itself(name, sources[name])
    ]
    untested.sort(key=lambda name: (-sizes[name], name))
    return {
        "test_files": sum(PurePosixPath(name).name not in _SUPPORT for name in tests),
        "test_functions": sum(count_tests(name, content) for name, content in tests.items()),
        "source_files": len(sizes),
        "untested_total": len(untested),
        "untested": fit([{"path": name, "lines": sizes[name]} for name in untested], MAX_BYTES),
    }


@dataclass(frozen=True)
class Evidence:
    """What the tests say about which source files they exercise."""

    touched: frozenset[str]
    """Modules and paths that tests import."""
    named: dict[str, list[frozenset[str]]]
    """Source stem -> the words in the paths of the tests that are named after it."""
    stems: Counter[str]
    """How many source files share a stem."""

    @classmethod
    def of(cls, tests: dict[str, bytes], sources: Iterable[str]) -> Evidence:
        """Read the imports and the names of all tests."""
        named: dict[str, list[frozenset[str]]] = {}
        for name in tests:
            for bare in _bare_names(name):
                named.setdefault(bare, []).append(frozenset(re.split(r"[/._-]", name.lower())))
        touched = {found for name, content in tests.items() for found in imported(name, content)}
        return cls(frozenset(touched), named, Counter(_stem(name) for name in sources))

    def covers(self, path: str) -> bool:
        """Tell whether some test is named after this file or imports it."""
        if language_of(path) == "Python":
            return self._names(path) or any(name in self.touched for name in _modules(path))
        return self._names(path) or _without_suffix(path) in self.touched

    def _names(self, path: str) -> bool:
        """`test_models` is about every `models` only where the test's path names its folder too."""
        tests = self.named.get(_stem(path), [])
        if self.stems[_stem(path)] == 1:
            return bool(tests)
        folder = PurePosixPath(path).parent.name.lower()
        return any(folder in words for words in tests)


def count_tests(name: str, content: bytes) -> int:
    """Count the test functions of one file; 0 for languages that are not known here."""
    language = language_of(name)
    if language == "Python":
        return sum(
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name.startswith("test")
            for node in ast.walk(_tree(content))
        )
    mark = _TEST_MARKS.get(language or "")
    return len(mark.findall(content)) if mark else 0


def imported(name: str, content: bytes) -> Iterator[str]:
    """Yield what a test file imports: dotted Python modules, or script paths without suffix."""
    if language_of(name) == "Python":
        yield from _python_imports(name, _tree(content))
        return
    folder = PurePosixPath(name).parent
    for path in _JS_IMPORT.findall(content.decode("utf-8", "replace")):
        yield _without_suffix(_normal(folder / path))


def _tree(content: bytes) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([], [])


def _python_imports(name: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(name, node)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _absolute(name: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = PurePosixPath(name).parts[: -node.level]
    return ".".join([*package, *([node.module] if node.module else [])])


def _tests_itself(path: str, content: bytes) -> bool:
    """Rust keeps unit tests inside the file that they test."""
    return language_of(path) == "Rust" and count_tests(path, content) > 0


def _modules(path: str) -> Iterator[str]:
    """Yield the names that a file may be imported by: whole, or from a folder on the path."""
    parts = list(PurePosixPath(path).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    yield ".".join(parts)
    yield from (".".join(parts[start:]) for start in range(1, len(parts) - 1))
    if parts[:1] in (["src"], ["lib"]):
        yield ".".join(parts[1:])


def _bare_names(test: str) -> Iterator[str]:
    """Yield the source names that a test file is named after: `test_views` is about `views`."""
    stem = _stem(test)
    bare = _DECORATION.sub("", stem)
    if bare and bare != stem:
        yield bare


def _content(repository: Repository, name: str) -> bytes:
    content = repository.read_code(name)
    return b"" if isinstance(content, Skipped) else content


def _stem(path: str) -> str:
    return PurePosixPath(path).stem.lower()


def _normal(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts = parts[:-1]
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def _without_suffix(path: str) -> str:
    return str(PurePosixPath(path).with_suffix("")) if path else path
