"""Any other language, measured from its indentation: an approximation that needs no parser."""

from __future__ import annotations

_COMMENTS = ("//", "#", "*", "/*", "--", "<!--", '"""', "'''")


def code_lines(text: str) -> list[str]:
    """Return the lines that are neither blank nor, by their first characters, a comment."""
    return [
        line
        for line in text.splitlines()
        if line.strip() and not line.strip().startswith(_COMMENTS)
    ]


def complexity(lines: list[str]) -> int:
    """Count the lines that lie deeper than the one before: each opens a block.

    Blocks are mostly functions, branches and loops, so the count is near the sum of
    cyclomatic complexities; wrapped calls and literals make it higher, one-line
    branches lower. Good for comparing files of one repository, not for a limit.
    """
    count = 0
    depth = 0
    for line in lines:
        expanded = line.expandtabs(4)
        now = len(expanded) - len(expanded.lstrip(" "))
        count += now > depth
        depth = now
    return count
