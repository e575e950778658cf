"""The report's section about each hot file: where to begin, whom to ask, what hangs on it."""

from __future__ import annotations

from typing import Any

from examples.repo_review.markdown import code, plain

Json = dict[str, Any]

#: A function below this needs no splitting.
HARD = 10
#: Rewritten more often than this, a file has not found its shape.
RESTLESS = 2.0


def closeups(facts: Json) -> list[str]:
    """Return the lines of the section; nothing at all where no file is hot."""
    rows = {row["path"]: row for row in facts["hotspots"]["hotspots"]}
    found = [one for one in facts["closeups"] or [] if one]
    if not found:
        return []
    lines = ["## The hottest files, one by one", ""]
    if lost := len(facts["closeups"]) - len(found):
        lines += [f"> {lost} of them could not be looked at.", ""]
    for one in found:
        dive = facts["dive"] if facts["dive"] and facts["dive"]["path"] == one["path"] else None
        lines += [f"### {code(one['path'])}", "", *_file(one, rows.get(one["path"], {}), dive), ""]
    return lines[:-1]


def _file(one: Json, row: Json, dive: Json | None) -> list[str]:
    items = [_begin(one), _tests(row), *_changed(one), *_ask(one), *_undone(one)]
    return [f"- {item}" for item in (*items, *(_dive(dive) if dive else [])) if item]


def _begin(one: Json) -> str:
    if not one["functions"]:
        return f"**Size**: {one['lines']} lines."
    first = one["functions"][0]
    where = f"{code(first['name'])} (line {first['line']})"
    if first["complexity"] <= HARD:
        return (
            f"**No function is hard by itself**: {one['function_count']} in {one['lines']} lines, "
            f"the most complex is {where} with {first['complexity']}."
        )
    deep = f", nested {first['nesting']} deep" if first["nesting"] > 2 else ""
    others = [code(row["name"]) for row in one["functions"][1:] if row["complexity"] > HARD]
    then = f"; then {' and '.join(others)}" if others else ""
    return (
        f"**Begin with {where}**: complexity {first['complexity']} in "
        f"{first['lines']} lines{deep}{then}."
    )


def _tests(row: Json) -> str:
    if row.get("tested") is False:
        return "**Tests**: none found; write some before the next change."
    return ""


def _changed(one: Json) -> list[str]:
    if not one["changes"]:
        return []
    said = f"**Changed** {_times(one['changes'])}{_period(one)}"
    touched = one["added"] + one["removed"]
    if touched:
        said += f", {one['added']:,} lines added and {one['removed']:,} removed"
    if one["lines"] and one["removed"] > RESTLESS * one["lines"]:
        said += f": rewritten {one['removed'] / one['lines']:.0f} times over"
    return [said + _largest(one) + "."]


def _period(one: Json) -> str:
    if one["oldest"] == one["newest"]:
        return f" on {one['newest']}"
    return f" from {one['oldest']} to {one['newest']}"


def _largest(one: Json) -> str:
    found = one["largest"]
    if not found or one["changes"] < 3:
        return ""
    return f"; most by {code(found['commit'])} (+{found['added']} −{found['removed']})"  # noqa: RUF001 - a minus


def _ask(one: Json) -> list[str]:
    if not one["authors"]:
        return []
    names = [
        f"{plain(row['name'])} ({_count(row['commits'], 'change')}, the last on {row['newest']})"
        for row in one["authors"][:3]
    ]
    return [f"**Ask** {', '.join(names)}."]


def _undone(one: Json) -> list[str]:
    undone = one["undone"]
    if not undone["count"]:
        return []
    lines = ", ".join(str(number) for number in undone["lines"])
    more = ", …" if undone["count"] > len(undone["lines"]) else ""
    return [f"**Left undone**: {_count(undone['count'], 'note')}, in line {lines}{more}."]


def _dive(dive: Json) -> list[str]:
    items = []
    restless = [row for row in dive["functions"] if row["changes"] > 1][:3]
    if restless:
        parts = [f"{code(row['name'])} ({_times(row['changes'])})" for row in restless]
        items.append(f"**What keeps changing in it**: {', '.join(parts)}.")
    if dive["partners"]:
        parts = [
            f"{code(row['path'])} ({row['together']} of {dive['changes']} times)"
            for row in dive["partners"]
        ]
        items.append(
            f"**Changes together with** {', '.join(parts)}: look for what they should not share."
        )
    return items


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number:,} times")


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"
