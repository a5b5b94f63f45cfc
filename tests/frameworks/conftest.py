"""Frameworks are optional: ``pip install 'florlog[transformers]'``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.end_to_end.harness import Nursery


@pytest.fixture(scope="module")
def trainers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Processes that have imported what a Trainer needs."""
    pytest.importorskip("transformers")
    made = Nursery(tmp_path_factory.mktemp("trainers"), "transformers.trainer", "transformers.models.gpt2")
    yield made
    made.close()
