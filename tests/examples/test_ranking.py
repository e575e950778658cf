from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from examples.repo_review.closeup import look
from examples.repo_review.dependencies import dependencies
from examples.repo_review.dive import dive
from examples.repo_review.history import mine
from examples.repo_review.inventory import inventory
from examples.repo_review.lint import lint
from examples.repo_review.markdown import code, plain, table
from examples.repo_review.metrics import survey
from examples.repo_review.ownership import ownership
from examples.repo_review.ranking import rank_files, rank_functions, ranks
from examples.repo_review.report import write
from examples.repo_review.scan import scan
from tests.examples.conftest import Workshop


def review(workshop: Workshop, **options: Any) -> dict[str, Any]:
    """Do what the workflow does, without a platform."""
    found = scan(str(workshop.root))
    root = found["root"]
    history = mine(root, found["head"], **options)
    facts: dict[str, Any] = {
        "scan": found,
        "history": history,
        "owners": ownership(history),
        "metrics": survey(root),
        "lint": lint(root),
        "tests": inventory(root),
        "dependencies": dependencies(root, print),
    }
    facts["functions"] = rank_functions(metrics=facts["metrics"])
    names = ("history", "metrics", "lint", "tests", "owners")
    facts["hotspots"] = rank_files(**{name: facts[name] for name in names})
    place = {"root": root, "head": found["head"]}
    hottest = facts["hotspots"]["hottest"]
    facts["closeups"] = [look(**place, **row) for row in hottest]
    facts["dive"] = dive(**place, **hottest[0]) if facts["hotspots"]["churn_tells"] else None
    return {**facts, **write(facts)}


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 50), max_size=30))
def test_ranks_keep_the_order_and_lie_between_0_and_1(values: dict[str, float]) -> None:
    found = ranks(values)
    assert all(0 < rank <= 1 for rank in found.values())
    for a, b in zip(values, list(values)[1:], strict=False):
        assert (values[a] < values[b]) == (found[a] < found[b])


def test_what_is_hard_and_changed_often_comes_before_what_is_only_one_of_both(
    shop: Workshop,
) -> None:
    rows = review(shop)["hotspots"]
    order = [row["path"] for row in rows]
    assert order[0] == "shop/cart.py"
    assert set(order[1:3]) == {"shop/constants.py", "shop/tax.py"}
    cart = rows[0]
    assert cart["why"] == "changed 6 times by 2 authors, complexity 17, no tests found"
    assert cart["score"] > 1.5 * rows[1]["score"]


def test_the_report_tells_a_maintainer_where_to_begin(shop: Workshop) -> None:
    found = review(shop)
    assert "**Write tests before the next change** of `shop/cart.py`" in found["advice"][0]
    assert "**Split `cart`** (`shop/cart.py:1`)" in found["advice"][1]
    assert (
        "| 1 | `shop/cart.py` | 0." in found["markdown"]
        or "| 1 | `shop/cart.py` | 1." in found["markdown"]
    )


def test_tests_for_the_hot_spot_change_the_plan(shop: Workshop) -> None:
    shop.write("tests/test_cart.py", "from shop.cart import cart\n\ndef test_it():\n    cart(1)\n")
    shop.commit()
    found = review(shop)
    assert found["hotspots"][0]["tested"] is True
    assert not any("Write tests" in item for item in found["advice"])


def test_the_same_commit_gives_the_same_report(shop: Workshop) -> None:
    first = review(shop)
    assert review(shop)["markdown"] == first["markdown"]
    shop.git("gc", "--quiet")
    assert review(shop, slow_motion_s=0.05)["markdown"] == first["markdown"]


def test_a_young_repository_is_ranked_by_complexity_alone_and_says_so(workshop: Workshop) -> None:
    workshop.write("easy.py", "def f(a):\n    return a or 1\n")
    workshop.write("hard.py", "def f(a):\n" + "    a = a or 1\n" * 20)
    workshop.commit()
    found = review(workshop)
    assert [row["path"] for row in found["hotspots"]] == ["hard.py", "easy.py"]
    assert found["hotspots"][0]["score"] == 1
    assert "complexity alone decides the order" in found["markdown"]
    assert "too short to say how frequent" in found["meaning"]


def test_a_shallow_clone_gives_a_report_with_its_limit(shop: Workshop) -> None:
    found = review(shop.clone("shallow", "--depth", "1"))
    assert "This is a shallow clone" in found["markdown"]
    assert found["hotspots"][0]["path"] in {"shop/cart.py", "shop/tax.py"}


def test_repositories_with_nothing_in_them_give_a_report_too(workshop: Workshop) -> None:
    before = review(workshop)["markdown"]
    assert "none yet" in before
    assert "No source file with a decision was found." in before
    workshop.commit()
    assert "Nothing stands out." in review(workshop)["markdown"]


def test_a_file_name_cannot_break_the_tables(workshop: Workshop) -> None:
    for name in (b"a|b.py", b"new\nline.py", b"`tick`.py", b"<img src=x>.py", b"latin-\xe9.py"):
        workshop.write(name, "def f(a):\n    return a or undefined\n")
    workshop.commit("Eve | *b*")
    lines = review(workshop)["markdown"].splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("| # | File"))
    rows = lines[start : start + 7]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    text = "\n".join(lines)
    assert "`new\\nline.py`" in text
    assert "| Eve \\| \\*b\\* |" in text


def test_markdown_helpers_escape_what_would_be_markup() -> None:
    assert plain("a*b_[c]\n") == "a\\*b\\_\\[c\\]\\\\n"
    assert code("a`b") == "`` a`b ``"
    assert table(["Name", "Size:"], [["x", 1]]) == ["| Name | Size |", "|---|---:|", "| x | 1 |"]


def test_a_list_that_was_cut_never_calls_a_file_tested_that_may_not_be() -> None:
    facts: dict[str, Any] = {
        "history": {"files": [], "files_changed": 0, "commits": 0},
        "metrics": {
            "files": [
                {"path": "large.py", "lines": 90, "complexity": 3},
                {"path": "small.py", "lines": 5, "complexity": 2},
                {"path": "bare.py", "lines": 50, "complexity": 1},
            ],
            "files_total": 3,
        },
        "lint": {"files": []},
        "tests": {"untested": [{"path": "bare.py", "lines": 50}], "untested_total": 7},
        "owners": {"authors": [], "author_count": 0},
    }
    rows = rank_files(**facts)["hotspots"]
    assert {row["path"]: row["tested"] for row in rows} == {
        "large.py": True,
        "small.py": None,
        "bare.py": False,
    }
