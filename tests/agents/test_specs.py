from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from agents.specs import Spec, load, parse
from opscore.errors import InvalidError


def problems(text: str, base: Path) -> list[str]:
    with pytest.raises(InvalidError) as caught:
        parse(dedent(text), base=base)
    return [str(problem) for problem in caught.value.problems]


def test_both_kinds_are_read(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    specs = parse(
        dedent(
            """
            agents:
              historian:
                kind: worker
                handlers: examples.repo_review.history
                capabilities: [git_history]
              linter:
                kind: command
                command: [ruff-lint.sh, --fast]
                capabilities: [lint, format]
                labels: [cpu]
                cwd: tools
                env: {A: b}
                timeout: 60
                replicas: 0
            """
        ),
        base=tmp_path,
    )
    assert specs["historian"] == Spec(
        "historian", "worker", ("git_history",), handlers="examples.repo_review.history"
    )
    assert specs["linter"] == Spec(
        name="linter",
        kind="command",
        capabilities=("lint", "format"),
        labels=("cpu",),
        replicas=0,
        command=("ruff-lint.sh", "--fast"),
        cwd=str(tmp_path / "tools"),
        env={"A": "b"},
        timeout_s=60,
    )


def test_database_learns_neither_command_nor_module(tmp_path: Path) -> None:
    text = "agents: {a: {kind: command, command: [secret], capabilities: [x]}}"
    assert parse(text, base=tmp_path)["a"].offered() == {
        "kind": "command",
        "capabilities": ["x"],
        "labels": [],
        "replicas": 1,
    }


def test_every_problem_is_told_at_once_with_path_and_line(tmp_path: Path) -> None:
    found = problems(
        """\
        agents:
          a:
            kind: wroker
          b:
            kind: command
            comand: [x]
            capabilities: [1, ok]
            replicas: -1
            timeout: soon
            env: {A: 1}
            cwd: nowhere
          platform: {handlers: a.b, capabilities: [x]}
          "no good": {handlers: "a b", capabilities: words}
          c: {kind: worker, command: [x]}
        agent: {}
        """,
        tmp_path,
    )
    assert found == [
        "line 15: agent: unknown key 'agent'; did you mean 'agents'?",
        "line 3: agents.a.kind: unknown kind 'wroker'; did you mean 'worker'? "
        "A host starts: worker, command, process",
        "line 6: agents.b.comand: unknown key 'comand'; did you mean 'command'?",
        "line 7: agents.b.capabilities[0]: a word of 1 to 80 characters is expected, not 1",
        "line 8: agents.b.replicas: a whole number >= 0 is expected, not -1",
        "line 4: agents.b: `command` is missing: program and arguments, as a list",
        f"line 11: agents.b.cwd: there is no folder '{tmp_path}/nowhere'",
        "line 10: agents.b.env: a mapping of texts is expected, not {'A': 1}",
        "line 9: agents.b.timeout: 'soon' is not a duration; write it as 90s, 2m, 1h30m or 500ms",
        "line 12: agents.platform: the name 'platform' is the platform's own",
        "line 13: agents.no good: a spec's name is made of letters, digits, '_' and '-', "
        "at most 60, a letter or digit first",
        "line 13: agents.no good.capabilities: a list of words is expected",
        "line 13: agents.no good.handlers: a Python module's name, as "
        "examples.repo_review.history, is expected, not 'a b'",
        "line 14: agents.c.command: unknown key 'command'; "
        "known: kind, capabilities, labels, replicas, max_replicas, autoscale, recycle, handlers, limits",
        "line 14: agents.c: `capabilities` is missing: what can this agent do?",
        "line 14: agents.c: `handlers` is missing: the Python module with its handlers",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "a mapping with the key `agents` is expected"),
        ("agents: [a]", "line 1: agents: a mapping of agent specs is expected"),
        ("{}", "line 1: agents: a mapping of agent specs is expected"),
        ("agents: {a: 1}", "line 1: agents.a: a mapping is expected"),
        ("agents: {a: {}\n", "line 2: not valid YAML"),
        ("agents: {}\nagents: {}", "line 2: agents: `agents` stands twice, first in line 1"),
        ("- agents", "line 1: a mapping with the key `agents` is expected, not a list"),
        (
            "agents:\n  a: {kind: [other]}",
            "line 2: agents.a.kind: unknown kind ['other']. A host starts: worker, command, process",
        ),
        (
            "agents:\n  c: {kind: command, capabilities: [x], command: [cat], cwd: 5}\n",
            "line 2: agents.c.cwd: a folder is expected, not 5",
        ),
        (
            "agents:\n  b:\n    capabilities:\n    - x\n    - 1\n",
            "line 5: agents.b.capabilities[1]: a word of 1 to 80 characters",
        ),
    ],
)
def test_documents_of_another_shape_are_refused(text: str, expected: str, tmp_path: Path) -> None:
    assert expected in problems(text, tmp_path)[0]


def test_file_that_is_no_text_names_its_line(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"agents:\n  a: \xff\n")
    with pytest.raises(InvalidError, match=r"(?s)a\.yaml are not valid.*line 2: .*UTF-8"):
        load(file)


def test_missing_file_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="OPSCORE_AGENTS_FILE"):
        load(tmp_path / "none.yaml")


def test_error_text_shows_every_problem(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("agents: {a: {kind: x}, b: {kind: y}}")
    with pytest.raises(InvalidError, match=r"(?s)a\.yaml are not valid.*agents\.a.*agents\.b"):
        load(file)
