"""What a file is, judged by its path alone: source, test, somebody else's code, or other."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

#: Suffix -> language, for files whose complexity means something to a maintainer.
LANGUAGES = {
    ".py": "Python",
    ".js": "JavaScript",
    ".jsx": "JavaScript",
    ".mjs": "JavaScript",
    ".cjs": "JavaScript",
    ".ts": "TypeScript",
    ".tsx": "TypeScript",
    ".vue": "Vue",
    ".svelte": "Svelte",
    ".go": "Go",
    ".rs": "Rust",
    ".java": "Java",
    ".kt": "Kotlin",
    ".scala": "Scala",
    ".c": "C",
    ".h": "C",
    ".cc": "C++",
    ".cpp": "C++",
    ".hpp": "C++",
    ".cs": "C#",
    ".rb": "Ruby",
    ".php": "PHP",
    ".swift": "Swift",
    ".dart": "Dart",
    ".ex": "Elixir",
    ".exs": "Elixir",
    ".lua": "Lua",
    ".pl": "Perl",
    ".sh": "Shell",
    ".bash": "Shell",
}

_FOREIGN_FOLDERS = frozenset(
    {
        *("vendor", "vendored", "_vendor", "third_party", "node_modules", "bower_components"),
        *("dist", "build", "site-packages", ".venv", "venv", "__pycache__", ".tox", ".eggs"),
    }
)
_FOREIGN_NAMES = re.compile(r"(\.min\.(js|cjs|mjs)|_pb2(_grpc)?\.py|\.pb\.go|\.g\.dart)$")
_TEST_FOLDERS = frozenset({"tests", "__tests__", "spec", "specs", "e2e", "testdata"})
_TEST_NAMES = re.compile(
    r"^(test_.+\.py|.+_tests?\.(py|go|exs|dart|rb)|tests?\.py|conftest\.py"
    r"|.+[.-](test|spec)\.[cm]?[jt]sx?|.+_spec\.(rb|lua)|.+(Test|Tests|Spec)\.(java|kt|scala|cs|php|swift))$"
)


def language_of(path: str) -> str | None:
    """Return the language's name, or None for files that hold no code."""
    return LANGUAGES.get(PurePosixPath(path).suffix.lower())


def is_foreign(path: str) -> bool:
    """Tell whether the path looks vendored or generated: nobody here edits it by hand."""
    parts = PurePosixPath(path).parts
    return not _FOREIGN_FOLDERS.isdisjoint(parts[:-1]) or bool(_FOREIGN_NAMES.search(path))


def is_test(path: str) -> bool:
    """Tell whether the path belongs to tests, by the usual conventions of its language."""
    parts = PurePosixPath(path).parts
    folders, name = parts[:-1], parts[-1]
    # A folder `test` deep inside a package is often product code (django/test), so it counts
    # only at the top or where Java, Kotlin and Scala keep theirs.
    at_top = folders[:1] == ("test",) or folders[:2] == ("src", "test")
    return at_top or not _TEST_FOLDERS.isdisjoint(folders) or bool(_TEST_NAMES.match(name))


def is_source(path: str) -> bool:
    """Tell whether the file can become a hot spot: own code that is not a test."""
    return language_of(path) is not None and not is_foreign(path) and not is_test(path)
