"""What happens to the issue of the gate after each kind of night, without GitHub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from poolbench.core import UsageError
from poolbench_tracking.tracker_issue import LONGEST, MARKER, Issue, NightVerdict, cut, issue_body, read_night, requests

RED = NightVerdict(1, "2026-11-20T02:17:00+00:00", "def5678", ("pool=max", "pool=avg"))
GREEN = NightVerdict(0, "2026-11-21T02:17:00+00:00", "abc1234", ())
NO_DATA = NightVerdict(3, "2026-11-21T02:17:00+00:00", "abc1234", ())


def calls(verdict: NightVerdict, issue: Issue | None) -> list[str]:
    return [" ".join(request.arguments[:3]) for request in requests(verdict, "# Regression gate\n", issue)]


def opened(*regressed: str) -> Issue:
    return Issue(7, issue_body(NightVerdict(1, "n", "c", regressed), "old summary"))


def test_a_regression_opens_the_issue_or_updates_it() -> None:
    (create,) = requests(RED, "# Regression gate\n", None)
    assert create.arguments == ("issue", "create", "--title", "The nightly gate is red")
    assert create.body.splitlines()[0] == MARKER
    assert create.body.endswith("Night 2026-11-20T02:17:00+00:00, commit def5678.\n\n# Regression gate\n")
    # The order of the groups says nothing.
    assert calls(RED, opened("pool=avg", "pool=max")) == ["issue edit 7"]


def test_other_regressed_groups_are_worth_a_comment() -> None:
    comment, edit = requests(RED, "new summary", opened("pool=avg", "head=*x*"))
    assert comment.arguments == ("issue", "comment", "7")
    assert comment.body.splitlines()[2:] == [
        "New:",
        "",
        "- pool=max",
        "",
        "No longer in the list:",
        "",
        "- head=\\*x\\*",
    ]
    assert edit.arguments == ("issue", "edit", "7")
    assert Issue(7, edit.body).reported == {"pool=max", "pool=avg"}
    assert "new summary" in edit.body
    # An issue that somebody has edited reports nothing: everything is new.
    for body in (
        MARKER,
        f"{MARKER}\n<!-- poolbench regressed: [broken -->",
        f"{MARKER}\n<!-- poolbench regressed: 3 -->",
    ):
        assert calls(RED, Issue(7, body)) == ["issue comment 7", "issue edit 7"]


def test_a_green_night_closes_and_a_night_without_data_does_nothing() -> None:
    assert calls(GREEN, opened("pool=max")) == ["issue comment 7", "issue close 7"]
    assert calls(GREEN, None) == []
    assert calls(NO_DATA, opened("pool=max")) == calls(NO_DATA, None) == []


@pytest.mark.parametrize("label", ["a --> b", 'quote " and \\', "Grüße 池", "<!-- x -->", "line\nline"])
def test_any_label_survives_the_body(label: str) -> None:
    body = issue_body(NightVerdict(1, "n", "c", (label, "other")), "summary")
    assert Issue(1, body.replace("\n", "\r\n")).reported == {label, "other"}
    assert body.count("-->") == 2


def test_a_long_body_is_cut_and_says_so() -> None:
    line = "| regressed | 池 |\n"
    fits = "x" * (LONGEST - 1) + "\n"
    assert cut(fits) == fits
    body = issue_body(RED, line * 6000)
    assert LONGEST - 2 * len(line) < len(body) <= LONGEST
    assert body.splitlines()[-1].startswith("Cut here: GitHub allows 65,536 characters.")
    # Whole lines, and the head is still there.
    assert set(body.splitlines()[5:-4]) == {line.strip()}
    assert Issue(1, body).reported == {"pool=max", "pool=avg"}
    many = NightVerdict(1, "n", "c", tuple(f"pool=max, width={number}" for number in range(6000)))
    (comment, edit) = requests(many, "", opened())
    assert max(len(comment.body), len(edit.body)) <= LONGEST


def test_the_verdict_of_the_gate_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    def write(content: object) -> None:
        (tmp_path / "verdict.json").write_text(content if isinstance(content, str) else json.dumps(content))

    good = {"exit_code": 1, "night": "n", "commit": "c", "regressed": ["a"]}
    write(good)
    with pytest.raises(UsageError, match=r"summary\.md.*run 'poolbench regress' first"):
        read_night(tmp_path)
    (tmp_path / "summary.md").write_text("summary")
    assert read_night(tmp_path) == (NightVerdict(1, "n", "c", ("a",)), "summary")
    wrong = ["", "{", [1], {**good, "exit_code": 2}, {**good, "regressed": "a"}, {**good, "regressed": [1]}]
    for content in (*wrong, {"exit_code": 0}):
        write(content)
        with pytest.raises(UsageError, match="cannot read the verdict") as caught:
            read_night(tmp_path)
        assert "\n" not in str(caught.value)
