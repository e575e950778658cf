"""Python source, measured from its syntax tree."""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BRANCHES = frozenset(
    {
        *(ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler),
        *(ast.comprehension, ast.match_case),
    }
)
_BLOCKS = frozenset(
    {
        *(ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.TryStar),
        *(ast.With, ast.AsyncWith, ast.Match),
    }
)


@dataclass(frozen=True)
class FunctionFacts:
    """One function or method."""

    name: str
    """Qualified: `Class.method`, `outer.inner`."""
    line: int
    lines: int
    complexity: int
    """Cyclomatic: 1 plus the number of decisions; functions inside count on their own."""
    arguments: int
    nesting: int
    """How deep its deepest block lies."""
    documented: bool


@dataclass(frozen=True)
class PythonFacts:
    """One Python file."""

    complexity: int
    """The sum over its functions plus the decisions outside of them."""
    functions: tuple[FunctionFacts, ...]
    public: int
    documented: int
    """How many of the public functions and classes have a docstring."""


def measure(content: bytes) -> PythonFacts:
    """Measure a file; raises SyntaxError (with its line) when it cannot be parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _facts(ast.parse(content))
    except (ValueError, RecursionError, MemoryError) as error:
        raise SyntaxError(f"not readable: {type(error).__name__}") from None


def _facts(tree: ast.Module) -> PythonFacts:
    survey = _Survey()
    outside = survey.visit(tree, _Frame(), 0, "")
    return PythonFacts(
        complexity=outside.decisions + sum(found.complexity for found in survey.functions),
        functions=tuple(survey.functions),
        public=survey.public,
        documented=survey.documented,
    )


@dataclass
class _Frame:
    """Counts inside of one function, or outside of all."""

    decisions: int = 0
    nesting: int = 0


class _Survey:
    """Visits every node of a module once."""

    def __init__(self) -> None:
        self.functions: list[FunctionFacts] = []
        self.public = 0
        self.documented = 0

    def visit(self, node: ast.AST, frame: _Frame, depth: int, prefix: str) -> _Frame:
        """Count what lies below `node`; functions get frames of their own."""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, _FUNCTIONS):
                self._count_public(child)
                self._function(child, prefix)
            elif isinstance(child, ast.ClassDef):
                self._count_public(child)
                self.visit(child, frame, depth, f"{prefix}{child.name}.")
            else:
                frame.decisions += _decisions(child)
                below = depth + _deepens(node, child)
                frame.nesting = max(frame.nesting, below)
                self.visit(child, frame, below, prefix)
        return frame

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, prefix: str) -> None:
        place = len(self.functions)
        frame = self.visit(node, _Frame(), 0, f"{prefix}{node.name}.")
        arguments = node.args
        found = FunctionFacts(
            name=prefix + node.name,
            line=node.lineno,
            lines=(node.end_lineno or node.lineno) - node.lineno + 1,
            complexity=1 + frame.decisions,
            arguments=len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs),
            nesting=frame.nesting,
            documented=ast.get_docstring(node, clean=False) is not None,
        )
        self.functions.insert(place, found)

    def _count_public(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        if not node.name.startswith("_"):
            self.public += 1
            self.documented += ast.get_docstring(node, clean=False) is not None


def _decisions(node: ast.AST) -> int:
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    return int(type(node) in _BRANCHES)


def _deepens(parent: ast.AST, child: ast.AST) -> int:
    """`elif` is an `If` alone in the `orelse` of another: no deeper for the reader."""
    is_elif = isinstance(parent, ast.If) and isinstance(child, ast.If) and parent.orelse == [child]
    return int(type(child) in _BLOCKS and not is_elif)
