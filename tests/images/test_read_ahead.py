"""Images read ahead are those that are read when they are asked for, and what a program kept of one stays as it is."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from florlog_recovery import Image
from florlog_wal import Forked, RunBegin, RunLog, WalError, encode_table

from florlog.images import read_ahead
from florlog.images.imager import SavedState, page_table
from florlog.images.read_ahead import ReadAhead
from florlog.images.snapshot import snapshot

COUNT = 8


def state(number: int) -> dict[str, torch.Tensor]:
    """Tensors like those of a model and an optimizer: two of one size, one over several pages, a small one."""
    made = torch.Generator().manual_seed(number)
    sizes = {"weight": 300_000, "moment": 300_000, "bias": 5_000, "step": 1}
    return {name: torch.rand(size, generator=made) for name, size in sizes.items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def images(path: Path) -> list[Image]:
    """A log's images of `state`, one for each number."""
    found = []
    with RunLog.open(path, mode="w") as log:
        log.append(RunBegin("r", "r", "record", "s", (), "/", {}, {}, (), 0.0, 0, 1, 0))
        for number in range(COUNT):
            copy = snapshot({"model": state(number), "/rng": {"seed": number}})
            table = page_table(copy, lambda pages, keys: log.put_pages(pages).digests)
            (digest,) = log.put_pages([encode_table(table)]).digests
            found.append(Image(number, digest, copy.nbytes, 0.0))
    return found


def reading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("florlog-read")]


def is_state(found: dict[str, torch.Tensor], number: int) -> bool:
    expected = state(number)
    return found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)


def adopted_tensor(tree: dict[str, torch.Tensor]) -> Any:
    return tree["weight"]


def adopted_view(tree: dict[str, torch.Tensor]) -> Any:
    return tree["weight"].view(3, -1)[1, 7:9]


def adopted_array(tree: dict[str, torch.Tensor]) -> Any:
    return tree["weight"].numpy()[100:200]


def adopted_parameter(tree: dict[str, torch.Tensor]) -> Any:
    return torch.nn.Parameter(tree["weight"])


@pytest.mark.parametrize("adopt", [adopted_tensor, adopted_view, adopted_array, adopted_parameter])
def test_memory_is_used_again_and_an_adopted_tensor_is_never_overwritten(
    path: Path, images: list[Image], adopt: Callable[[dict[str, torch.Tensor]], Any]
) -> None:
    kept: list[Any] = []
    addresses: list[int] = []
    with RunLog.open(path) as log:
        ahead = ReadAhead(log)
        for image, following in zip(images, [*images[1:], None], strict=True):
            saved, _ = ahead.take(image, following)
            tree = saved.tree("model")
            assert is_state(tree, image.lsn)
            assert saved.tree("/rng") == {"seed": image.lsn}
            addresses.append(tree["moment"].data_ptr())
            kept.append(adopt(tree))
            del saved, tree
        for number, held in enumerate(kept):
            assert torch.equal(torch.as_tensor(held), torch.as_tensor(adopt(state(number))))
    assert len(set(addresses)) < COUNT  # what nobody kept was used again


def test_an_image_gives_the_same_read_ahead_or_not(path: Path, images: list[Image]) -> None:
    with RunLog.open(path) as log:
        ahead = ReadAhead(log)
        for asked, following in (
            (3, 4),
            (4, 6),
            (5, 0),
            (0, None),
            (7, None),
        ):  # not always what was announced
            saved, seconds = ahead.take(images[asked], None if following is None else images[following])
            alone = SavedState(log, images[asked].table)
            assert saved.names() == alone.names()
            assert is_state(saved.tree("model"), asked)
            assert is_state(alone.tree("model"), asked)
            assert seconds > 0


def test_a_name_that_is_asked_for_again_has_other_memory(path: Path, images: list[Image]) -> None:
    with RunLog.open(path) as log:
        saved, _ = ReadAhead(log).take(images[2], None)
        first = saved.tree("model")
        first["weight"].zero_()
        assert is_state(saved.tree("model"), 2)


def test_a_damaged_image_raises_what_it_raises_alone_and_the_next_is_read(
    path: Path, images: list[Image]
) -> None:
    with RunLog.open(path) as log:
        pages = SavedState(log, images[3].table).table["model.moment:"].pages
    segment = path / "segments" / "00000001"
    whole = segment.read_bytes()
    at = whole.index(state(3)["moment"].numpy().tobytes()[:100])
    with segment.open("r+b") as file:
        file.seek(at + 50)
        file.write(bytes(10))
    with RunLog.open(path) as log:
        ahead = ReadAhead(log)
        ahead.take(images[2], images[3])
        saved, seconds = ahead.take(images[3], images[4])
        assert seconds == 0
        assert saved.tree("/rng") == {"seed": 3}
        with pytest.raises(WalError, match=pages[0].hex()) as here:
            saved.tree("model")
        with pytest.raises(WalError) as alone:
            SavedState(log, images[3].table).tree("model")
        assert (here.type, str(here.value)) == (alone.type, str(alone.value))
        assert is_state(ahead.take(images[4], None)[0].tree("model"), 4)


def test_an_image_without_a_table_raises_what_it_raises_alone(path: Path, images: list[Image]) -> None:
    lost = Image(99, bytes(16), 0, 0.0)
    with RunLog.open(path) as log:
        ahead = ReadAhead(log)
        assert is_state(ahead.take(images[0], lost)[0].tree("model"), 0)
        with pytest.raises(WalError) as here:
            ahead.take(lost, images[1])
        with pytest.raises(WalError) as alone:
            SavedState(log, lost.table)
        assert (here.type, str(here.value)) == (alone.type, str(alone.value))
        assert is_state(ahead.take(images[1], None)[0].tree("model"), 1)


def test_an_image_that_is_large_for_the_memory_is_not_read_as_a_whole(
    path: Path, images: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    begin = RunLog.begin_reading

    def counting(log: RunLog, *given: Any) -> Any:
        begun.append(len(given[0]))
        return begin(log, *given)

    monkeypatch.setattr(RunLog, "begin_reading", counting)
    with RunLog.open(path) as log:
        ReadAhead(log).take(images[0], images[1])
        assert len(begun) == 2
        monkeypatch.setattr(read_ahead, "MAX_MEMORY_SHARE", 1e-9)
        saved, seconds = ReadAhead(log).take(images[0], images[1])
        assert (len(begun), seconds) == (2, 0)
        assert is_state(saved.tree("model"), 0)


def test_nothing_is_left_of_reading_ahead_after_its_end(path: Path, images: list[Image]) -> None:
    with RunLog.open(path) as log:
        ahead = ReadAhead(log)
        for _ in range(20):
            ahead.begin(images[0])
            ahead.close()
            assert not reading_threads()
        ahead.begin(images[0])
    # The log was closed too early: reads end by themselves, with whatever they found.
    for thread in reading_threads():
        thread.join(60)
        assert not thread.is_alive()


def test_a_forked_child_does_not_wait_for_its_parents_threads(path: Path, images: list[Image]) -> None:
    with RunLog.open(path) as log:
        ahead = ReadAhead(log)
        for _ in range(10):
            ahead.begin(images[0])
            child = os.fork()
            if child == 0:
                try:
                    ahead.take(images[0], images[1])[0].tree("model")
                except Forked:
                    os._exit(0)
                os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert is_state(ahead.take(images[0], None)[0].tree("model"), 0)


def test_what_a_forked_child_holds_of_an_image_stays_as_it_is(path: Path, images: list[Image]) -> None:
    go_on, told = os.pipe()
    with RunLog.open(path) as log:
        ahead = ReadAhead(log)
        tree = ahead.take(images[0], images[1])[0].tree("model")
        child = os.fork()
        if child == 0:
            os.close(told)  # so that it ends when its parent fails
            os.read(go_on, 1)
            os._exit(0 if is_state(tree, 0) else 1)
        del tree
        for image, following in zip(images[1:], [*images[2:], None], strict=True):
            assert is_state(ahead.take(image, following)[0].tree("model"), image.lsn)
        os.write(told, b"x")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(go_on)
    os.close(told)
