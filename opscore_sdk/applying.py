"""`opscore apply`: sends files, and shows what became of each thing in them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from opscore_sdk import report
from opscore_sdk.client import Client
from opscore_sdk.statuses import DONE, UsageError
from opscore_sdk.verbs import text_of

_SUFFIXES = frozenset({".yaml", ".yml", ".json"})
_SAID = {"create": ("created", "would be created"), "change": ("changed", "would change")}


def apply(client: Client, options: argparse.Namespace) -> int:
    """Make the platform what the files say."""
    files = {str(path): text_of(path) for path in paths_of(options.files)}
    changes = client.apply(files, dry_run=options.dry_run)
    if options.json:
        report.value({"dry_run": options.dry_run, "changes": changes})
        return DONE
    lines: list[str] = []
    for change in changes:
        lines.append(_line(change, dry_run=options.dry_run))
        lines += [f"    {report.coloured_diff(line)}" for line in change["diff"].splitlines()]
    lines.append(_summary(changes, dry_run=options.dry_run))
    report.done("\n".join(lines), None, as_json=False)
    return DONE


def paths_of(given: Sequence[Path]) -> list[Path]:
    """Return the files, and those of each folder; raises UsageError."""
    found: list[Path] = []
    for path in given:
        inside = sorted(_files_below(path)) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"{path} holds no .yaml, .yml or .json file.")
        found += [one for one in inside if one not in found]
    return found


def _files_below(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in _SUFFIXES and path.is_file() and not hidden:
            yield path


def _line(change: Mapping[str, Any], *, dry_run: bool) -> str:
    done, planned = _SAID.get(change["change"], ("unchanged", "unchanged"))
    # The number of a version that is taken back is nobody's.
    shows_version = change["version"] and not (dry_run and change["change"] != "unchanged")
    version = f" (version {change['version']})" if shows_version else ""
    kind = change["kind"].removesuffix("s")
    return f"{kind} {change['name']} {planned if dry_run else done}{version}"


def _summary(changes: Sequence[Mapping[str, Any]], *, dry_run: bool) -> str:
    counts = {word: sum(one["change"] == word for one in changes) for word in _SAID}
    if not any(counts.values()):
        return "Everything is so already."
    said = f"{counts['create']} to create, {counts['change']} to change; nothing was changed"
    done = f"{counts['create']} created, {counts['change']} changed"
    return f"{said if dry_run else done}, {len(changes) - sum(counts.values())} as they were."
