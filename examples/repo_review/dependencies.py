"""Compares declared dependencies with the imports: what the agent `librarian` does."""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path, PurePosixPath
from typing import Any

from examples.repo_review.languages import is_foreign, is_test
from examples.repo_review.manifests import LOCKS, Dependency, declared, is_manifest
from examples.repo_review.repository import Repository, Skipped

Json = dict[str, Any]

#: Import name -> distribution, where the two differ and the package may not be installed here.
_KNOWN = {
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "environ": "django-environ",
    "git": "gitpython",
    "google": "google-*",
    "jose": "python-jose",
    "jwt": "pyjwt",
    "magic": "python-magic",
    "mysqldb": "mysqlclient",
    "openssl": "pyopenssl",
    "pil": "pillow",
    "pkg_resources": "setuptools",
    "psycopg2": "psycopg2-binary",
    "rest_framework": "djangorestframework",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "zmq": "pyzmq",
}
#: Packages that are used without being imported: servers, drivers, plugins of a build.
_SILENT = re.compile(
    r"pip|setuptools|wheel|gunicorn|uvicorn|granian|hypercorn|daphne|uwsgi|psycopg.*|mysqlclient"
    r"|.*stubs|types-.*|pytest.*|mypy|ruff|black|flake8|isort|coverage|tox|nox|twine|build"
)
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.\w+)*")


def dependencies(root: str, say: Callable[[str], None]) -> Json:
    """Return what is declared, what floats without a lock, and where imports disagree.

    `say` gets a line for the task's log now and then. Raises RepositoryError.
    """
    repository = Repository(Path(root))
    names = [name for name in repository.files() if not is_foreign(name)]
    texts = _texts(repository, [name for name in names if is_manifest(name)])
    locks = sorted(name for name in names if _is_lock(name, texts.get(name, "")))
    manifests = {name: text for name, text in texts.items() if name not in locks}
    say(f"reading {len(manifests)} manifests")
    found, unreadable = _read(manifests)
    uses = Uses.of(repository, [name for name in names if name.endswith(".py")])
    say(f"{len(found)} dependencies declared, {len(uses.imports)} packages imported")
    return {
        "manifests": sorted(manifests)[:30],
        "locks": locks[:30],
        "unreadable": unreadable[:10],
        "ecosystems": [_ecosystem(name, rows, locks) for name, rows in _grouped(found)],
        **_compare([row for row in found if row.ecosystem == "Python"], uses),
    }


def _texts(repository: Repository, names: list[str]) -> dict[str, str]:
    contents = {name: repository.read(name) for name in names}
    return {
        name: content.decode("utf-8", "replace")
        for name, content in contents.items()
        if not isinstance(content, Skipped)
    }


def _is_lock(name: str, text: str) -> bool:
    """A requirements file counts as a lock when it was compiled: with hashes or origins."""
    compiled = name.endswith(".txt") and ("--hash=" in text or "    # via" in text)
    return PurePosixPath(name).name in LOCKS or compiled


def _read(manifests: dict[str, str]) -> tuple[list[Dependency], list[Json]]:
    found: list[Dependency] = []
    unreadable: list[Json] = []
    for name, text in manifests.items():
        try:
            found += declared(name, text)
        except ValueError as error:
            unreadable.append({"path": name, "reason": str(error)[:200]})
    return found, unreadable


def _grouped(found: list[Dependency]) -> list[tuple[str, list[Dependency]]]:
    rows = defaultdict[str, list[Dependency]](list)
    for dependency in found:
        rows[dependency.ecosystem].append(dependency)
    return sorted(rows.items())


def _ecosystem(name: str, rows: list[Dependency], locks: list[str]) -> Json:
    runtime = {row.name.lower(): row for row in rows if not row.group}
    floating = sorted(row.name for row in runtime.values() if not row.pinned)
    return {
        "name": name,
        "declared": len({row.name.lower() for row in rows}),
        "runtime": len(runtime),
        "pinned": len(runtime) - len(floating),
        "unbounded": sorted(row.name for row in runtime.values() if row.wanted in {"", "*"})[:20],
        "floating": floating[:40],
        "locked": any(LOCKS.get(PurePosixPath(lock).name, "Python") == name for lock in locks),
    }


@dataclass(frozen=True)
class Uses:
    """Which packages the Python files use, without their own and those of Python itself."""

    imports: dict[str, set[str]]
    """Top-level package -> the files that import it."""
    mentions: frozenset[str]
    """Packages that only strings name, as Django's INSTALLED_APPS does."""

    @classmethod
    def of(cls, repository: Repository, names: list[str]) -> Uses:
        """Read every Python file once."""
        not_foreign = _own_packages(names) | sys.stdlib_module_names
        imports = defaultdict[str, set[str]](set)
        mentions: set[str] = set()
        for name in names:
            content = repository.read(name)
            if isinstance(content, Skipped):
                continue
            tree = _tree(content)
            for package in imported_packages(tree) - not_foreign:
                imports[package].add(name)
            mentions |= mentioned_packages(tree)
        return cls(dict(imports), frozenset(mentions - not_foreign))


def _own_packages(names: list[str]) -> set[str]:
    """Return the top-level names that the repository itself offers to `import`."""
    packages = {str(PurePosixPath(n).parent) for n in names if n.endswith("/__init__.py")}
    own: set[str] = set()
    for name in names:
        inside = PurePosixPath(name).with_suffix("")
        while str(inside.parent) in packages:
            inside = inside.parent
        own |= {inside.name, *(part for part in inside.parts[:1] if len(inside.parts) > 1)}
    return own


def _tree(content: bytes) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([], [])


def imported_packages(tree: ast.Module) -> set[str]:
    """Return the top-level names that a file imports, at any depth."""
    return {module.split(".")[0] for node in ast.walk(tree) for module in _modules(node)}


def mentioned_packages(tree: ast.Module) -> set[str]:
    """Return the top-level part of every string that could be a dotted module name."""
    strings = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {
        text.split(".")[0]
        for text in strings
        if isinstance(text, str) and len(text) < 100 and _DOTTED.fullmatch(text)
    }


def _modules(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
        yield node.module


def _compare(python: list[Dependency], uses: Uses) -> Json:
    """Match imports with declarations; empty where no Python manifest declares anything."""
    if not python:
        return {"undeclared": [], "unused": []}
    names = {_normal(name) for row in python for name in (row.name, *row.extras)}
    installed = packages_distributions()
    found = {
        package: _matching(_providers(package, installed), names)
        for package in {*uses.imports, *uses.mentions}
    }
    missing = {
        package: files
        for package, files in uses.imports.items()
        if not found[package] and not all(is_test(name) for name in files)
    }
    idle = {_normal(row.name) for row in python if not row.group}.difference(*found.values())
    return {
        "undeclared": [
            {"package": package, "files": len(files), "example": min(files)}
            for package, files in sorted(missing.items(), key=lambda item: (-len(item[1]), item[0]))
        ][:30],
        "unused": sorted(name for name in idle if not _SILENT.fullmatch(name))[:30],
    }


def _providers(package: str, installed: Any) -> set[str]:
    """Return the distributions that an import may come from."""
    bare = _normal(package)
    guesses = {
        bare,
        f"python-{bare}",
        f"py{bare}",
        f"django-{bare}",
        _KNOWN.get(package.lower(), bare),
    }
    return guesses | {_normal(name) for name in installed.get(package, [])}


def _matching(providers: Iterable[str], names: set[str]) -> set[str]:
    """Return the declared names among the providers; `ruamel` also stands for `ruamel-yaml`."""
    exact = set(providers) & names
    prefixes = tuple(f"{name.rstrip('*-')}-" for name in providers)
    return exact or {name for name in names if name.startswith(prefixes)}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
