"""Definitions drawn as text and for Mermaid."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.definition import from_data, parse
from workflows.drawing import draw

SHOWN = """\
name: release
version: "2"
tasks:
  scan: {capability: scan, requires: [gpu]}
  go: {uses: signal, with: {name: go}}
  deep:
    needs: scan
    if: tasks.scan.result.n > 1
    for_each: ${{ tasks.scan.result.files }}
    max_parallel: 4
    capability: review
    catch: {on: timeout, result: null}
  pause: {uses: wait, needs: go, with: {duration: 90m}}
  loop:
    needs: [deep, pause]
    join: none_failed
    repeat: {until: result.ok, max: 3}
    tasks:
      inner: {capability: fix}
      last: {needs: inner, capability: test}
  ship: {needs: loop, uses: "workflow:ship@1", undo: {capability: unship}}
  ask: {needs: loop, uses: approval, with: {role: admin}}
finally:
  tell: {capability: tell}
"""
AS_TEXT = """\
release 2
    1  scan   [scan +gpu]
       go     [signal go]
    2  deep   [review]  <- scan  if tasks.scan.result.n > 1  \
for each of tasks.scan.result.files, 4 at once  catch timeout
       pause  [wait 90m]  <- go
    3  loop   [block]  <- none_failed of deep, pause  repeat until result.ok, at most 3
          1  inner  [fix]
          2  last   [test]  <- inner
    4  ship   [workflow:ship@1]  <- loop  undo by unship
       ask    [approval by admin]  <- loop
  finally
      1  tell  [tell]
"""


def test_text_shows_levels_arrows_and_marks() -> None:
    assert draw(parse(SHOWN)) == AS_TEXT


def test_mermaid_shows_nodes_edges_and_subgraphs() -> None:
    drawn = draw(parse(SHOWN), "mermaid").splitlines()
    assert drawn[0] == "flowchart TD"
    for line in (
        '  t0["scan<br/>scan +gpu"]',
        '  t1>"go<br/>signal go"]',
        '  subgraph t4["loop<br/>join: none#95;failed<br/>repeat until result.ok, at most 3"]',
        '    t4x0["inner<br/>fix"]',
        "    t4x0 --> t4x1",
        "  t0 -.-> t2",
        "  t2 --> t4",
        '  t5[["ship<br/>workflow:ship@1<br/>undo by unship"]]',
        '  t6{{"ask<br/>approval by admin"}}',
        '  subgraph last["finally"]',
    ):
        assert line in drawn
    assert drawn.count("  end") == 2


NODE = r'[a-z0-9]+(?:\["L"\]|\(\["L"\]\)|>"L"\]|\{\{"L"\}\}|\[\["L"\]\])'
LABEL = r"(?:[^\"#&;<>`\\|\[\]\(\){}*_~]|#\d+;|<br/>)*"
LINE = re.compile(
    rf'\s*(?:flowchart TD|end|subgraph [a-z0-9]+\["{LABEL}"\]|'
    + NODE.replace("L", LABEL)
    + r"|[a-z0-9]+ (?:-->|-\.->) [a-z0-9]+)"
)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n\r"), min_size=1))
def test_no_text_breaks_out_of_a_label(text: str) -> None:
    literal = text.replace("${{", "")
    tasks = {
        "end": {"uses": "signal", "with": {"name": literal}},
        "subgraph": {"needs": "end", "for_each": [1], "capability": "c", "if": "run.id == '`|\"'"},
    }
    for line in draw(from_data({"name": "x", "tasks": tasks}), "mermaid").splitlines():
        assert LINE.fullmatch(line), line


@pytest.mark.parametrize(
    ("duration", "shown"),
    [("2d", "2d"), ("90m", "90m"), ("1h", "1h"), (0.5, "0.5s"), ("${{ inputs.n }}", "inputs.n")],
)
def test_durations_are_shown_as_people_write_them(duration: object, shown: str) -> None:
    tasks = {"t": {"uses": "wait", "with": {"duration": duration}}}
    assert f"[wait {shown}]" in draw(from_data({"name": "x", "tasks": tasks}))
