from __future__ import annotations

from pathlib import Path
from typing import Any

from examples.repo_review.closeup import look
from examples.repo_review.dive import dive
from tests.examples.conftest import Workshop


def seen(workshop: Workshop, path: str = "shop/cart.py", commits: int = 6) -> dict[str, Any]:
    head = workshop.git("rev-parse", "HEAD")
    return look(root=str(workshop.root), head=head, path=path, commits=commits)


def dived(workshop: Workshop, path: str = "shop/cart.py", commits: int = 6) -> dict[str, Any]:
    head = workshop.git("rev-parse", "HEAD")
    return dive(root=str(workshop.root), head=head, path=path, commits=commits)


def test_a_close_up_says_what_is_hard_and_who_knows_it(shop: Workshop) -> None:
    found = seen(shop)
    assert (found["changes"], found["oldest"], found["newest"]) == (6, "2024-01-03", "2024-01-08")
    assert [(row["name"], row["complexity"]) for row in found["functions"]] == [("cart", 17)]
    assert [(row["name"], row["commits"], row["newest"]) for row in found["authors"]] == [
        ("Ann", 4, "2024-01-06"),
        ("Bob", 2, "2024-01-08"),
    ]
    # It began as a copy of `tax.py`, of which only the difference counts.
    assert (found["added"], found["removed"], found["largest"]["added"]) == (7, 6, 2)


def test_only_the_changes_that_were_counted_are_read(shop: Workshop) -> None:
    assert seen(shop, commits=2)["oldest"] == "2024-01-07"
    assert seen(shop, commits=0)["authors"] == []


def test_a_close_up_follows_a_rename_and_finds_notes(shop: Workshop) -> None:
    shop.git("mv", "shop/cart.py", "shop/basket.py")
    shop.commit()
    shop.write("shop/basket.py", (shop.root / "shop/basket.py").read_text() + "# TODO: less\n")
    shop.commit()
    found = seen(shop, "shop/basket.py", commits=8)
    assert found["changes"] == 8
    assert found["undone"] == {"count": 1, "lines": [19]}


def test_files_that_are_odd_or_gone_have_a_close_up(shop: Workshop) -> None:
    for name in (b"new\nline.py", b"latin-\xe9.py", b"back\\xe9slash.py", b":(glob)*.py", b"x.js"):
        shop.write(name, "def f(:\n")
    shop.commit()
    for shown in ("new\nline.py", "latin-\\xe9.py", "back\\xe9slash.py", ":(glob)*.py", "x.js"):
        assert (seen(shop, shown)["changes"], dived(shop, shown)["changes"]) == (1, 1), shown
    Path(shop.root / "x.js").unlink()
    assert seen(shop, "x.js")["lines"] == 0


def test_a_dive_counts_the_changes_of_functions(shop: Workshop) -> None:
    before = (shop.root / "shop/cart.py").read_text()
    shop.write("shop/cart.py", before.replace("return 3", "return 33") + "def easy():\n    pass\n")
    shop.commit()
    found = dived(shop, commits=7)
    changes = {row["name"]: row["changes"] for row in found["functions"]}
    # `cart` when it was written and now; the comment below it is no part of it.
    assert changes == {"cart": 2, "easy": 1}
    assert found["changes"] == 7


def test_a_dive_finds_what_changes_together_but_not_in_sweeping_commits(shop: Workshop) -> None:
    assert dived(shop)["partners"] == [{"path": "shop/constants.py", "together": 6}]
    for number in range(40):
        shop.write(f"many/{number}.py", "x = 1\n")
    shop.write("shop/constants.py", "RATE = 9\n")
    shop.write("shop/cart.py", "x = 1\n")
    shop.commit()
    found = dived(shop, commits=7)
    assert (found["changes"], found["partners"][0]["together"]) == (7, 6)


def test_shallow_and_partial_clones_are_read_as_far_as_they_go(shop: Workshop) -> None:
    shop.git("config", "uploadpack.allowFilter", "true")
    shallow = shop.clone("shallow", "--depth", "3")
    assert seen(shallow)["changes"] == 2
    assert dived(shallow)["changes"] == 2
    partial = shop.clone("partial", "--filter=blob:none")
    assert (seen(partial)["changes"], seen(partial)["added"]) == (6, 0)
    assert dived(partial)["functions"] == []
    assert dived(partial)["partners"][0]["together"] == 6
