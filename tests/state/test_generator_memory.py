"""A capture of the random generators is the state that they have, also when parts of an earlier capture are used."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from florlog.state.generator_memory import GeneratorMemory, can_see_draws, is_same
from florlog.state.random_generators import Randomness


def _keep_a_number() -> None:
    np.random.set_bit_generator(np.random.MT19937(3))
    np.random.set_state(np.random.RandomState(3).get_state(legacy=False) | {"has_gauss": 1, "gauss": 0.5})


ACTS: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "random.random": random.random,
    "random.gauss, of which one is kept": lambda: random.gauss(0.0, 1.0),
    "random.seed": lambda: random.seed(4),
    "random.setstate": lambda: random.setstate(random.Random(5).getstate()),
    "numpy.random.rand": np.random.rand,
    "numpy.random.randn, of which one is kept": np.random.randn,
    "numpy.random.seed": lambda: np.random.seed(6),
    "numpy.random.set_state with a kept number": _keep_a_number,
    "another bit generator": lambda: np.random.set_bit_generator(np.random.PCG64(7)),
    "another Mersenne Twister": lambda: np.random.set_bit_generator(np.random.MT19937(8)),
    "torch.rand": lambda: torch.rand(1),
}


@pytest.fixture(autouse=True)
def generators_as_before() -> Iterator[None]:
    bits = np.random.get_bit_generator()
    randomness = Randomness()
    before = randomness.capture()
    yield
    np.random.set_bit_generator(bits)
    randomness.restore(before)


def test_the_memory_of_generators_shows_each_draw() -> None:
    assert can_see_draws()


def test_the_memory_is_the_same_as_long_as_nothing_is_drawn() -> None:
    memory = GeneratorMemory(random._inst, np.random.mtrand._rand)
    assert is_same(memory.now(), memory.now())
    before = memory.now()
    np.random.rand()
    assert not is_same(before, memory.now())


def _plain(tree: Any) -> Any:
    match tree:
        case dict():
            return {key: _plain(value) for key, value in tree.items()}
        case list() | tuple():
            return [_plain(value) for value in tree]
        case np.ndarray() | torch.Tensor():
            return tree.tolist()
    return tree


@pytest.mark.parametrize("number", range(20))
def test_a_capture_is_what_a_fresh_one_is_after_whatever_was_done(number: int) -> None:
    chance = random.Random(number)
    used = Randomness()
    for _ in range(30):
        name = chance.choice([*ACTS])
        ACTS[name]()
        assert _plain(used.capture()) == _plain(Randomness().capture()), name


@pytest.mark.parametrize("name", ACTS)
def test_a_capture_is_not_changed_by_what_is_done_later(name: str) -> None:
    used = Randomness()
    captured = used.capture()
    before = _plain(captured)
    ACTS[name]()
    used.capture()
    assert _plain(captured) == before


def test_a_state_that_differs_by_a_kept_number_alone_is_captured() -> None:
    """Its second normal number is kept: drawing that one changes no bit of the Mersenne Twister."""
    used = Randomness()
    np.random.seed(1)  # which keeps none, whatever was drawn before
    np.random.randn()
    with_one, bits = used.capture(), np.random.get_state(legacy=False)["state"]["key"].tolist()
    np.random.randn()
    without = used.capture()
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == bits
    assert (with_one["numpy"]["has_gauss"], without["numpy"]["has_gauss"]) == (1, 0)
