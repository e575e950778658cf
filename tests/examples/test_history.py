from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from examples.repo_review.history import mine
from examples.repo_review.ownership import bus_factor, ownership
from examples.repo_review.repository import Repository
from tests.examples.conftest import Workshop


def history(workshop: Workshop, **options: Any) -> dict[str, Any]:
    return mine(str(workshop.root), Repository(workshop.root).head(), **options)


def churn(found: dict[str, Any]) -> dict[str, int]:
    return {row["path"]: row["commits"] for row in found["files"]}


def test_churn_counts_commits_of_source_files_and_names_the_main_author(shop: Workshop) -> None:
    found = history(shop)
    assert churn(found) == {
        "shop/cart.py": 6,
        "shop/constants.py": 6,
        "shop/tax.py": 1,
        "shop/plain.py": 1,
        "shop/__init__.py": 1,
    }
    cart = found["files"][0]
    assert (cart["path"], cart["authors"], cart["main"]) == ("shop/cart.py", 2, "Ann")
    assert (found["oldest"], found["newest"]) == ("2024-01-02", "2024-01-08")


def test_only_the_newest_commits_are_read(shop: Workshop) -> None:
    assert churn(history(shop, commits=2)) == {"shop/cart.py": 2, "shop/constants.py": 2}


def test_a_renamed_file_keeps_its_churn(workshop: Workshop) -> None:
    body = "".join(f"line{n} = {n}\n" for n in range(20))
    for number in range(3):
        workshop.write("old.py", body + f"# {number}\n")
        workshop.commit()
    workshop.git("mv", "old.py", "middle.py")
    workshop.commit()
    workshop.git("mv", "middle.py", "new name.py")
    workshop.commit()
    assert churn(history(workshop)) == {"new name.py": 5}


def test_a_new_file_under_the_name_of_a_renamed_one_starts_at_zero(workshop: Workshop) -> None:
    body = "".join(f"line{n} = {n}\n" for n in range(20))
    workshop.write("a.py", body)
    workshop.commit()
    workshop.git("mv", "a.py", "b.py")
    workshop.commit()
    workshop.write("a.py", "other = 1\n")
    workshop.commit()
    assert churn(history(workshop)) == {"b.py": 2, "a.py": 1}


def test_deleted_files_and_tests_are_no_candidates(shop: Workshop) -> None:
    (shop.root / "shop/cart.py").unlink()
    shop.commit()
    assert "shop/cart.py" not in churn(history(shop))
    assert "tests/test_tax.py" not in churn(history(shop))


def test_the_edge_of_a_shallow_clone_is_not_counted_as_a_change_of_everything(
    shop: Workshop,
) -> None:
    found = history(shop.clone("shallow", "--depth", "3"))
    assert churn(found) == {"shop/cart.py": 2, "shop/constants.py": 2}
    assert (found["commits"], found["commits_unknown"]) == (2, 1)


def test_a_clone_without_file_contents_is_read_without_fetching(shop: Workshop) -> None:
    shop.git("config", "uploadpack.allowFilter", "true")
    partial = shop.clone("partial", "--filter=blob:none")
    partial.git("remote", "set-url", "origin", "file:///nowhere")
    assert churn(history(partial)) == churn(history(shop))


def test_a_repository_without_commits_has_no_churn(workshop: Workshop) -> None:
    workshop.write("a.py", "x = 1\n")
    found = history(workshop)
    assert (found["commits"], found["files"], found["newest"]) == (0, [], "")


def test_odd_file_names_are_counted(workshop: Workshop) -> None:
    for number in range(2):
        for name in (b"new\nline.py", b"tab\tname.py", b"latin-\xe9.py", b"\x1emark.py"):
            workshop.write(name, f"x = {number}\n")
        workshop.commit()
    assert set(churn(history(workshop)).values()) == {2}
    assert len(history(workshop)["files"]) == 4


def test_two_addresses_of_one_author_are_one_person(workshop: Workshop) -> None:
    workshop.write(".mailmap", "Ann <ann@example.org> <anne@example.org>\n")
    for author in ("Ann", "Anne"):
        workshop.write("a.py", f"x = '{author}'\n")
        workshop.commit(author)
    assert history(workshop)["author_count"] == 1


def test_a_large_history_stays_below_the_inline_limit(
    make_workshop: Callable[[str], Workshop],
) -> None:
    workshop = make_workshop("large")
    for number in range(3000):
        workshop.write(f"package/with_a_long_name/{number:04}_module.py", f"x = {number}\n")
    workshop.commit()
    found = history(workshop)
    assert found["files_changed"] == 3000
    assert 500 < len(found["files"]) < 3000
    assert len(json.dumps(found)) < 128 * 1024


def test_slow_motion_changes_no_result(shop: Workshop) -> None:
    assert history(shop, slow_motion_s=0.2) == history(shop)


def test_who_left_and_who_knows_a_file_alone_is_named(workshop: Workshop) -> None:
    for number in range(4):
        workshop.write("legacy.py", f"x = {number}\n")
        workshop.commit("Zoe", day=number)
    for number in range(4):
        workshop.write("fresh.py", f"x = {number}\n")
        workshop.commit("Ann", day=400 + number)
    found = ownership(history(workshop))
    assert [row["path"] for row in found["islands"]] == ["fresh.py", "legacy.py"]
    assert [(row["path"], row["author"]) for row in found["orphans"]] == [("legacy.py", "Zoe")]
    assert {row["name"]: row["silent"] for row in found["authors"]} == {"Ann": False, "Zoe": True}


def test_bus_factor_is_the_number_of_authors_who_hold_half_of_the_files() -> None:
    from collections import Counter

    assert bus_factor(Counter({"Ann": 8, "Bob": 1, "Cid": 1})) == 1
    assert bus_factor(Counter({"Ann": 3, "Bob": 3, "Cid": 3, "Dee": 3})) == 2
    assert bus_factor(Counter()) == 0
