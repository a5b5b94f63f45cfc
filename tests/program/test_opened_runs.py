"""A run is the same one although its name has a time or a random number in it, and no other one for that."""

from __future__ import annotations

import datetime
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from florlog.program.opened_runs import is_same_name

FORMS = (
    "%Y-%m-%d_%H-%M-%S", "%Y%m%d-%H%M%S", "%b%d_%H-%M-%S", "%Y-%m-%dT%H:%M:%S.%f", "%H:%M", "%d.%m.%y", "%Y%m%d", "%s",
)  # fmt: skip
TIMES = st.datetimes(datetime.datetime(2001, 10, 1), datetime.datetime(2040, 1, 1))


@given(st.sampled_from(FORMS), TIMES, TIMES)
def test_a_time_is_no_other_name(form: str, one: datetime.datetime, other: datetime.datetime) -> None:
    assert is_same_name(f"ppo__{one:{form}}_host-3", f"ppo__{other:{form}}_host-3")
    assert not is_same_name(f"ppo__{one:{form}}_host-3", f"ppo__{other:{form}}_host-4")


@given(st.uuids(version=4), st.uuids(version=4))
def test_a_random_number_is_no_other_name(one: uuid.UUID, other: uuid.UUID) -> None:
    if any(map(str.isdigit, one.hex[:8])) and any(map(str.isdigit, other.hex[:8])):
        assert is_same_name(f"run-{one.hex[:8]}", f"run-{other.hex[:8]}")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("fold-1", "fold-2"), ("fold 12", "fold 13"), ("pretrain", "finetune"), ("lr0.1", "lr0.01"), ("w1024", "w2048"),
        ("lr=0.000001", "lr=0.000003"), ("seed 1", "seed 2"), ("facade", "decade"), ("a", "b"), ("a", "a1"),
    ],
)  # fmt: skip
def test_another_number_is_another_name(one: str, other: str) -> None:
    assert not is_same_name(one, other)
