"""Frameworks are optional: ``pip install 'florlog[transformers,lightning]'``."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.end_to_end.harness import Nursery


@pytest.fixture(scope="module")
def trainers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Processes that have imported what a Trainer needs."""
    pytest.importorskip("transformers")
    made = Nursery(tmp_path_factory.mktemp("trainers"), "transformers.trainer", "transformers.models.gpt2")
    yield made
    made.close()


@pytest.fixture(scope="module")
def lightnings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Processes that have imported Lightning, under each of its names that is installed."""
    names = [name for name in ("lightning.pytorch", "pytorch_lightning") if find_spec(name.partition(".")[0])]
    if not names:
        pytest.skip("neither lightning nor pytorch-lightning is installed")
    made = Nursery(tmp_path_factory.mktemp("lightnings"), *names)
    yield made
    made.close()


@pytest.fixture(scope="module")
def nurseries() -> Iterator[dict[str, Nursery]]:
    """A nursery for each framework that was asked for; a test puts in what it makes."""
    made: dict[str, Nursery] = {}
    yield made
    for nursery in made.values():
        nursery.close()
