"""What a repository declares to depend on, read from the manifests of its package managers."""

from __future__ import annotations

import ast
import configparser
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

LOCKS = {
    "uv.lock": "Python",
    "poetry.lock": "Python",
    "pdm.lock": "Python",
    "Pipfile.lock": "Python",
    "pylock.toml": "Python",
    "package-lock.json": "JavaScript",
    "npm-shrinkwrap.json": "JavaScript",
    "yarn.lock": "JavaScript",
    "pnpm-lock.yaml": "JavaScript",
    "Cargo.lock": "Rust",
    "go.sum": "Go",
}
_REQUIREMENT = re.compile(r"^([A-Za-z0-9][\w.-]*)\s*(\[[^\]]*\])?\s*(.*)$")
_REQUIREMENTS_FILE = re.compile(
    r"(^|[/_.-])(requirements|constraints)[^/]*\.(txt|in)$|(^|/)requirements/[^/]+\.(txt|in)$"
)


@dataclass(frozen=True)
class Dependency:
    """One declared dependency."""

    name: str
    wanted: str
    """The version part as written; empty: any version."""
    ecosystem: str
    file: str
    group: str = ""
    """Empty: needed at run time; else `dev`, `test`, an extra's name…"""
    extras: tuple[str, ...] = ()
    """Python's `celery[redis]`: mostly the names of packages that come along."""

    @property
    def pinned(self) -> bool:
        """Tell whether exactly one version is allowed."""
        if self.ecosystem == "JavaScript":
            return bool(re.fullmatch(r"=?v?\d+\.\d+\.\d+[\w.+-]*", self.wanted))
        if self.ecosystem == "Go":
            return True
        return self.wanted.startswith("==") and "*" not in self.wanted


def is_manifest(path: str) -> bool:
    """Tell whether `declared` can read this file."""
    return PurePosixPath(path).name in _READERS or bool(_REQUIREMENTS_FILE.search(path))


def declared(path: str, text: str) -> list[Dependency]:
    """Return what one manifest declares; raises ValueError when it cannot be read."""
    reader = _READERS.get(PurePosixPath(path).name, _requirements)
    try:
        return list(reader(path, text))
    except (ValueError, SyntaxError, AttributeError, TypeError, configparser.Error) as error:
        raise ValueError(str(error).splitlines()[0] if str(error) else "not readable") from None


def _python(path: str, line: str, group: str = "") -> Iterator[Dependency]:
    found = _REQUIREMENT.match(re.split(r";| #| --", line.strip(), maxsplit=1)[0].strip(" \\"))
    if found:
        wanted = found[3].replace(" ", "").strip("()")
        extras = tuple(re.findall(r"[\w.-]+", found[2] or ""))
        yield Dependency(found[1], wanted, "Python", path, group, extras)


def _requirements(path: str, text: str) -> Iterator[Dependency]:
    name = PurePosixPath(path).name.lower()
    words = re.findall(r"dev|test|doc|lint|ci|local|build", name)
    for line in text.splitlines():
        # Continued lines carry hashes only; options, links and comments name no package.
        if line[:1] not in {"", " ", "\t", "-", "#", ".", "/"} and "://" not in line.split("@")[0]:
            yield from _python(path, line, words[0] if words else "")


def _pyproject(path: str, text: str) -> Iterator[Dependency]:
    data = tomllib.loads(text)
    project: dict[str, Any] = data.get("project", {})
    for line in project.get("dependencies", []):
        yield from _python(path, line)
    groups = {**project.get("optional-dependencies", {}), **data.get("dependency-groups", {})}
    for group, lines in groups.items():
        for line in lines:
            if isinstance(line, str):
                yield from _python(path, line, group)
    yield from _poetry(path, data.get("tool", {}).get("poetry", {}))


def _poetry(path: str, poetry: dict[str, Any]) -> Iterator[Dependency]:
    tables = {"": poetry.get("dependencies", {}), "dev": poetry.get("dev-dependencies", {})}
    tables |= {
        name: group.get("dependencies", {}) for name, group in poetry.get("group", {}).items()
    }
    for group, table in tables.items():
        for name, wanted in table.items():
            if name.lower() != "python":
                yield Dependency(name, _version(wanted), "Python", path, group)


def _version(wanted: Any) -> str:
    version = wanted.get("version", "") if isinstance(wanted, dict) else str(wanted)
    return f"=={version}" if re.match(r"\d", version) else version


def _setup_cfg(path: str, text: str) -> Iterator[Dependency]:
    config = configparser.ConfigParser(interpolation=None)
    config.read_string(text)
    for line in config.get("options", "install_requires", fallback="").splitlines():
        yield from _python(path, line)


def _setup_py(path: str, text: str) -> Iterator[Dependency]:
    """Read a literal `install_requires`; the file is never run."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.keyword) and node.arg == "install_requires":
            for item in getattr(node.value, "elts", []):
                if isinstance(item, ast.Constant) and isinstance(item.value, str):
                    yield from _python(path, item.value)


def _pipfile(path: str, text: str) -> Iterator[Dependency]:
    data = tomllib.loads(text)
    for table, group in (("packages", ""), ("dev-packages", "dev")):
        for name, wanted in data.get(table, {}).items():
            yield Dependency(name, _version(wanted).replace("*", ""), "Python", path, group)


def _package_json(path: str, text: str) -> Iterator[Dependency]:
    data = json.loads(text)
    for table, group in (("dependencies", ""), ("devDependencies", "dev")):
        for name, wanted in data.get(table, {}).items():
            yield Dependency(name, str(wanted), "JavaScript", path, group)


def _cargo(path: str, text: str) -> Iterator[Dependency]:
    data = tomllib.loads(text)
    for table, group in (("dependencies", ""), ("dev-dependencies", "dev")):
        for name, wanted in data.get(table, {}).items():
            version = wanted.get("version", "") if isinstance(wanted, dict) else str(wanted)
            yield Dependency(name, version, "Rust", path, group)


def _go_mod(path: str, text: str) -> Iterator[Dependency]:
    for name, version in re.findall(
        r"^(?:require\s+|\s+)([\w./-]+\.[\w./-]+)\s+(v\S+)", text, re.MULTILINE
    ):
        yield Dependency(name, version, "Go", path)


_READERS = {
    "pyproject.toml": _pyproject,
    "setup.cfg": _setup_cfg,
    "setup.py": _setup_py,
    "Pipfile": _pipfile,
    "package.json": _package_json,
    "Cargo.toml": _cargo,
    "go.mod": _go_mod,
}
