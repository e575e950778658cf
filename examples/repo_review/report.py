"""The report: what a maintainer should look at first, and on which facts that rests.

It holds no clock time and no duration: the same commit gives the same text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from examples.repo_review.advice import advice
from examples.repo_review.closeup_report import closeups
from examples.repo_review.markdown import code, plain, table

Json = dict[str, Any]


def write(facts: Json) -> Json:
    """Return the report as `markdown`, the hot spots and what to do first as values."""
    sections: list[Callable[[Json], list[str]]] = [
        _summary,
        _first,
        _hotspots,
        closeups,
        _functions,
        _lint,
        _untested,
        _dependencies,
        _owners,
        _method,
    ]
    lines = [f"# Review of {plain(facts['scan']['name'])}", ""]
    for section in sections:
        lines += [*section(facts), ""]
    return {
        "markdown": "\n".join(lines).rstrip() + "\n",
        "advice": advice(facts),
        "meaning": meaning(facts["hotspots"]["churn_tells"]),
        "hotspots": [
            {key: row[key] for key in ("path", "score", "commits", "complexity", "tested", "why")}
            for row in facts["hotspots"]["hotspots"][:5]
        ],
    }


def _summary(facts: Json) -> list[str]:
    scan, history, metrics, tests = (facts[k] for k in ("scan", "history", "metrics", "tests"))
    languages = ", ".join(f"{name} {count}" for name, count in scan["languages"].items())
    lines = [
        f"- **Commit**: {_commit(scan)}",
        f"- **Read**: {_count(history['commits'], 'commit')}{_period(history)} "
        f"by {_count(history['author_count'], 'author')}; merges are left out",
        f"- **Code**: {_count(metrics['files_total'], 'source file')} ({languages or 'none'}), "
        f"{metrics['lines_source']:,} lines; {metrics['lines_test']:,} lines of tests",
        f"- **Tests**: {tests['test_functions']:,} in {_count(tests['test_files'], 'file')}; "
        f"{tests['untested_total']} of {_count(tests['source_files'], 'source file')} "
        "without any that names or imports it",
        f"- **Functions**: {metrics['functions_total']:,} in Python, "
        f"{metrics['functions_complex']} of them above complexity 10; "
        f"{_share(metrics['documented'], metrics['public'])} of the public ones documented",
        f"- **Lint**: {_lint_line(facts['lint'])}",
        f"- **Bus factor**: {facts['owners']['bus_factor'] or 'unknown'}",
    ]
    return ["## Summary", "", *lines, *_caveats(facts)]


def _commit(scan: Json) -> str:
    if not scan["head"]:
        return "none yet; the files are judged as they lie in the folder"
    branch = f" on {plain(scan['branch'])}" if scan["branch"] else " (detached)"
    return f"{code(scan['head'][:12])}{branch}, {scan['date']}: {plain(scan['subject'])}"


def _period(history: Json) -> str:
    if not history["commits"]:
        return ""
    if history["oldest"] == history["newest"]:
        return f" of {history['newest']}"
    return f" from {history['oldest']} to {history['newest']}"


def _caveats(facts: Json) -> list[str]:
    notes = []
    unknown = facts["history"]["commits_unknown"]
    if facts["scan"]["shallow"]:
        notes.append(
            f"This is a shallow clone: {_count(unknown, 'commit')} at its edge cannot be compared "
            "with what came before, and is not counted."
        )
    if not facts["hotspots"]["churn_tells"]:
        notes.append(
            "All files changed equally often in the commits read, so complexity alone "
            "decides the order."
        )
    return [line for note in notes for line in ("", f"> {note}")]


def _first(facts: Json) -> list[str]:
    items = advice(facts)
    listed = [f"{number}. {item}" for number, item in enumerate(items, 1)]
    return ["## Do first", "", *(listed or ["Nothing stands out."])]


def _hotspots(facts: Json) -> list[str]:
    rows = facts["hotspots"]["hotspots"]
    if not rows:
        return ["## Hot spots", "", "No source file with a decision was found."]
    heads = ["#:", "File", "Score:", "Churn:", "Complexity:", "Authors:", "Tests", "Lint:", "Why"]
    cells = [
        [
            place,
            code(row["path"]),
            f"{row['score']:.2f}",
            row["commits"],
            row["complexity"],
            row["authors"],
            {True: "yes", False: "**none**", None: "?"}[row["tested"]],
            row["lint"],
            plain(row["why"]),
        ]
        for place, row in enumerate(rows, 1)
    ]
    return ["## Hot spots", "", meaning(facts["hotspots"]["churn_tells"]), "", *table(heads, cells)]


def meaning(churn_tells: bool) -> str:
    """Say what being on the list means; a young history leaves only one half of it."""
    if churn_tells:
        return "Change here is both frequent and hard."
    return "Change here is hard; the history is too short to say how frequent it is."


def _functions(facts: Json) -> list[str]:
    rows = facts["functions"]["functions"]
    if not rows:
        return ["## Risky functions", "", _easy(facts["functions"]["most_complex"])]
    churn = {row["path"]: row["commits"] for row in facts["history"]["files"]}
    heads = ["Function", "Where", "Complexity:", "Lines:", "File's churn:", "Why"]
    cells = [
        [
            code(row["name"]),
            code(f"{row['path']}:{row['line']}"),
            row["complexity"],
            row["lines"],
            churn.get(row["path"], 0),
            plain(row["why"]),
        ]
        for row in rows
    ]
    return ["## Risky functions", "", *table(heads, cells)]


def _easy(most_complex: Json | None) -> str:
    if most_complex is None:
        return "No Python functions were found."
    where = code(f"{most_complex['path']}:{most_complex['line']}")
    return (
        "None: no function is above complexity 10 or 60 lines; the most complex is "
        f"{code(most_complex['name'])} ({where}) with {most_complex['complexity']}."
    )


def _lint(facts: Json) -> list[str]:
    lint = facts["lint"]
    lines = ["## Lint", "", f"{_lint_line(lint)}."]
    if lint["rules"]:
        heads = ["Rule", "Name", "Findings:", "Fixed by `ruff --fix`:"]
        rows = [
            [code(row["rule"]), plain(row["name"]), row["count"], row["fixable"]]
            for row in lint["rules"][:10]
        ]
        lines += ["", *table(heads, rows)]
    if lint["serious"]:
        shown = lint["serious"][:10]
        lines += ["", f"Likely mistakes ({len(shown)} of {lint['serious_total']}):", ""]
        lines += [
            f"- {code(row['path'] + ':' + str(row['line']))} {plain(row['message'])} ({row['rule']})"
            for row in shown
        ]
    return lines


def _lint_line(lint: Json) -> str:
    if not lint["available"]:
        return "not run, ruff is not installed on the agent's host"
    if not lint["files_checked"]:
        return "no Python files"
    if not lint["findings"]:
        return f"no findings in {_count(lint['files_checked'], 'file')}"
    return (
        f"{_count(lint['findings'], 'finding')} in {_count(lint['files_total'], 'file')} "
        f"of {lint['files_checked']}, {lint['fixable']} of them fixable by `ruff check --fix`"
    )


def _untested(facts: Json) -> list[str]:
    tests = facts["tests"]
    lines = ["## Modules that seem untested", ""]
    if not tests["untested"]:
        return [*lines, "None."]
    shown = tests["untested"][:15]
    lines += [
        f"The largest {len(shown)} of {tests['untested_total']}; no test file is named after "
        "them or imports them. They may be covered indirectly.",
        "",
    ]
    return lines + table(["File", "Lines:"], [[code(row["path"]), row["lines"]] for row in shown])


def _dependencies(facts: Json) -> list[str]:
    found = facts["dependencies"]
    lines = ["## Dependencies", ""]
    if not found["ecosystems"]:
        return [*lines, "No manifest declares any."]
    heads = ["Ecosystem", "Declared:", "At run time:", "Pinned:", "Lock file"]
    lines += table(
        heads,
        [
            [row["name"], row["declared"], row["runtime"], row["pinned"], _yes(row["locked"])]
            for row in found["ecosystems"]
        ],
    )
    for title, names in (
        ("Any version allowed", [n for row in found["ecosystems"] for n in row["unbounded"]]),
        ("Declared, never imported (may be plugins or programs)", found["unused"]),
    ):
        if names:
            lines += ["", f"{title}: {', '.join(code(name) for name in names[:15])}."]
    if found["undeclared"]:
        lines += ["", "Imported, not declared:", ""]
        lines += [
            f"- {code(row['package'])} in {_count(row['files'], 'file')}, "
            f"as in {code(row['example'])}"
            for row in found["undeclared"][:10]
        ]
    lines += [
        f"\n{code(row['path'])} cannot be read: {plain(row['reason'])}."
        for row in found["unreadable"]
    ]
    return lines


def _owners(facts: Json) -> list[str]:
    owners = facts["owners"]
    lines = ["## Authors", ""]
    if not owners["authors"]:
        return [*lines, "No history to read."]
    lines.append(
        f"Bus factor {owners['bus_factor']}: so many authors would have to leave until half of "
        "the changed files have lost their main author."
    )
    heads = ["Author", "Commits:", "Main author of:", "Newest commit"]
    rows = [
        [
            plain(row["name"]),
            row["commits"],
            _count(row["main_of"], "file"),
            row["newest"] + (" (silent)" if row["silent"] else ""),
        ]
        for row in owners["authors"][:10]
    ]
    lines += ["", *table(heads, rows)]
    if owners["author_count"] > 1 and owners["islands"]:
        shown = ", ".join(
            f"{code(row['path'])} ({plain(row['author'])})" for row in owners["islands"][:8]
        )
        lines += ["", f"Changed by one author only ({owners['island_count']}): {shown}."]
    return lines


def _method(facts: Json) -> list[str]:
    metrics, ranked = facts["metrics"], facts["hotspots"]
    skipped = ", ".join(f"{count} {reason}" for reason, count in metrics["skipped"].items())
    lines = [
        "## How the score is made",
        "",
        "Score = rank of churn x rank of complexity, each from 0 to 1 among the source files of "
        "this repository. Churn is the number of commits read that touched the file, under any "
        "of its names. Complexity of a Python file is the sum of the cyclomatic complexities of "
        "its functions; in other languages it is the number of lines that open a deeper "
        "indentation, an approximation. Tests, documents, data, vendored and generated files "
        "are not ranked. Tests and lint do not change the score, they are reasons.",
        "",
        f"{_count(ranked['ranked'], 'file')} with decisions ranked; not measured: {skipped or 'none'}.",
    ]
    if ranked["unranked"]:
        lines[-1] += f" {ranked['unranked']} files of little or no complexity are not ranked."
    lines += [
        f"\n{code(row['path'])} does not parse (line {row['line']}: {plain(row['reason'])}); "
        "its complexity is approximate."
        for row in metrics["unparsed"][:10]
    ]
    return lines


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "none"


def _yes(claim: bool) -> str:
    return "yes" if claim else "**no**"
