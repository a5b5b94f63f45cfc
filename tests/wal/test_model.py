"""The model of group commit, explored exhaustively; and each of its rules is needed."""

from __future__ import annotations

import pytest

from specs.group_commit import Broken, Rules, explore


def test_no_interleaving_and_no_crash_breaks_a_promise() -> None:
    states = explore(Rules(), appends=4, crashes=3)
    print(f"{states} states")
    assert states > 100_000


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ("pages_before_end", "not durable"),
        ("drain_before_reuse", "a kill leaves"),
        ("dense_frames_only", "not a prefix"),
        ("new_segments_on_open", "leaves"),
        ("recover_tail_first", "a reader has seen"),
    ],
)
def test_without_any_of_the_rules_a_promise_breaks(rule: str, complaint: str) -> None:
    with pytest.raises(Broken, match=complaint):
        explore(Rules(**{rule: False}), appends=3, crashes=2)
