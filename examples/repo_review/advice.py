"""What to do first: at most one item of each kind, only where the facts ask for it."""

from __future__ import annotations

from typing import Any

from examples.repo_review.markdown import code, plain

Json = dict[str, Any]

COMPLEX_FUNCTION = 15
COMPLEX_FILE = 10
HOT = 0.5


def advice(facts: Json) -> list[str]:
    """Return sentences in Markdown, the most urgent first."""
    items = (_broken(facts), _mistakes(facts), _untested(facts), _split(facts))
    later = (_undeclared(facts), _lock(facts), _knowledge(facts))
    return [item for item in (*items, *later) if item]


def _broken(facts: Json) -> str:
    broken = facts["metrics"]["unparsed"]
    if not broken:
        return ""
    names = ", ".join(code(row["path"]) for row in broken[:3])
    return f"**Mend what does not parse**: {names}{_more(facts['metrics']['unparsed_total'], 3)}."


def _mistakes(facts: Json) -> str:
    serious = [row for row in facts["lint"]["serious"] if row["rule"] != "invalid-syntax"]
    if not serious:
        return ""
    first = serious[0]
    where = code(f"{first['path']}:{first['line']}")
    total = facts["lint"]["serious_total"]
    return f"**Check {total} likely mistakes** of lint, as {where}: {plain(first['message'])}."


def _untested(facts: Json) -> str:
    bare = [
        row
        for row in facts["hotspots"]["hotspots"]
        if row["tested"] is False and row["score"] >= HOT and row["complexity"] >= COMPLEX_FILE
    ]
    if not bare:
        return ""
    names = ", ".join(code(row["path"]) for row in bare[:3])
    if not facts["tests"]["test_functions"]:
        return f"**Begin with tests**: the repository has none. First for {names}, its hot spots."
    return f"**Write tests before the next change** of {names}: hot, and no tests were found."


def _split(facts: Json) -> str:
    """Name the riskiest function of the hottest file: paying for it there pays most often."""
    risky = [
        row for row in facts["functions"]["functions"] if row["complexity"] >= COMPLEX_FUNCTION
    ]
    for file in facts["hotspots"]["hotspots"]:
        for row in risky:
            if row["path"] == file["path"]:
                where = code(f"{row['path']}:{row['line']}")
                return f"**Split {code(row['name'])}** ({where}): {row['why']}, in a hot file."
    return ""


def _undeclared(facts: Json) -> str:
    rows = facts["dependencies"]["undeclared"]
    if not rows:
        return ""
    names = ", ".join(code(row["package"]) for row in rows[:4])
    return f"**Declare what is imported**: {names}{_more(len(rows), 4)} in no manifest."


def _lock(facts: Json) -> str:
    for row in facts["dependencies"]["ecosystems"]:
        if not row["locked"] and len(row["floating"]) > 1:
            return (
                f"**Lock the {row['name']} dependencies**: {len(row['floating'])} of "
                f"{row['runtime']} float and there is no lock file."
            )
    return ""


def _knowledge(facts: Json) -> str:
    owners = facts["owners"]
    if owners["bus_factor"] != 1 or owners["author_count"] < 2:
        return ""
    busiest = max(owners["authors"], key=lambda row: row["main_of"])
    return (
        f"**Spread the knowledge**: {plain(busiest['name'])} is the main author of "
        f"{busiest['main_of']} of {owners['files']} changed files."
    )


def _more(total: int, shown: int) -> str:
    return f" and {total - shown} more" if total > shown else ""
