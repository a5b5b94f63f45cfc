"""A store of several runs, and what a crash may leave of it.

Run ``a`` is the oldest.  The writer of ``b`` was killed: its records are in the tail, and its segment ends with a page
that nothing names and with half a block.  ``c`` has answers.  Next to them lies what other dead processes left.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from florlog_wal import (
    CheckpointBegin,
    CheckpointEnd,
    Entry,
    PageEntry,
    RunLog,
    Store,
    WalError,
    decode_table,
    encode_table,
    verify,
)

from tests.wal.samples import checkpoint_end, commit, run_begin

RUNS = ("a", "b", "c")
"""From the oldest to the newest."""
LEFTOVERS = (".removed-0", ".unpacking-0", "half")
IMAGES = 6
LARGE_BYTES = 20_000  # a page of this size lies in a segment


def make(path: Path, images: int = IMAGES) -> None:
    """Make the store."""
    with Store.make(path) as store:
        for number, run in enumerate(RUNS):
            if run == "b":
                _killed(path, run, images, 100.0 + number)
                continue
            with store.new_log(run) as log:
                record(log, run, images, 100.0 + number)
                if run == "c":
                    with log.open_answers() as answers:
                        record(answers, run, 1, 0.0)
                        answers.put_pages([b"nobody needs this"])
    for name in LEFTOVERS:
        (path / "runs" / name / "log").mkdir(parents=True)


def record(log: RunLog, run: str, images: int, started: float = 0.0) -> None:
    """A session with an image after each iteration of 0.05 s, of small and large pages."""
    session = log.append(run_begin(run, started=started))
    for index in range(images):
        log.append(commit(index), session=session)
        image(log, session, run, index)


def image(log: RunLog, session: int, run: str, index: int, large: int = LARGE_BYTES) -> list[bytes]:
    """Append an image; the digests of its pages."""
    begin = log.append(CheckpointBegin(0, index + 1), session=session)
    text = f"{run} {index} ".encode()
    pages = [text * 20, *([text * (large // len(text))] if large else [])]
    entry = PageEntry("tensor", "uint8", (1,), sum(map(len, pages)), tuple(log.put_pages(pages).digests))
    table = log.put_pages([encode_table({"w": entry})]).digests[0]
    log.append(checkpoint_end(begin, table), session=session)
    return [table, *entry.pages]


def _killed(path: Path, run: str, images: int, started: float) -> None:
    if (child := os.fork()) == 0:
        try:
            with Store.open(path) as store:
                log = store.new_log(run, window=60.0)
                record(log, run, images, started)
                log._segments.append([memoryview(os.urandom(LARGE_BYTES))])
                with (log.path / "segments" / "00000001").open("ab") as segment:
                    segment.write(os.urandom(5000))
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


@dataclass(frozen=True)
class Held:
    """What a run contains."""

    records: list[Entry]  # without the ends of images
    images: dict[int, tuple[Entry, list[bytes]]]  # by LSN: the end of the image, its pages
    answers: Held | None


def held(where: Path) -> Held:
    """Read all of a run.  Raises `WalError`."""
    with RunLog.open(where) as log:
        return _held(log)


def _held(log: RunLog) -> Held:
    entries = list(log.scan())
    images = {}
    for entry in entries:
        if isinstance(entry.record, CheckpointEnd):
            table = decode_table(log.get_page(entry.record.table))
            pages = [bytes(memory) for memory in log.read_entries(list(table.values()))]
            images[entry.lsn] = entry, pages
    records = [entry for entry in entries if entry.lsn not in images]
    return Held(records, images, None if log.answers is None else _held(log.answers))


def contents(path: Path) -> dict[str, Held]:
    """All runs of a store."""
    with Store.open(path) as store:
        return {run: held(store.directory(run)) for run in store.runs()}


def problems(where: Path) -> list[str]:
    """What `verify` says of a run."""
    logs = [where, *([where / "answers"] if (where / "answers").exists() else [])]
    return [f"verify {log.name}: {problem}" for log in logs for problem in verify(log).problems]


def unlike(where: Path, before: Held, images: Collection[int] | None = None) -> list[str]:
    """What is wrong with a run that had these contents, and has to have at least these images still (default: all)."""
    try:
        now, wrong = held(where), problems(where)
    except WalError as error:
        return [f"lost: run {where.name}: {type(error).__name__}: {error}"]
    needed = before.images if images is None else images
    if now.records != before.records:
        wrong.append(f"lost: run {where.name} has {len(now.records)} of {len(before.records)} records")
    if missing := set(needed) - now.images.keys():
        wrong.append(f"lost: run {where.name} lacks the images {sorted(missing)}")
    if any(before.images.get(lsn) != image for lsn, image in now.images.items()):
        wrong.append(f"run {where.name} has images that it had not")
    if before.answers is not None and (now.answers is None or now.answers != before.answers):
        wrong.append(f"lost: the answers of run {where.name} are others")
    return wrong


def changed(path: Path, before: Mapping[str, Held]) -> list[str]:
    """What is wrong with runs that nobody was to change."""
    return [text for run, found in before.items() for text in unlike(path / "runs" / run, found)]


def half_removed(path: Path, run: str, before: Held) -> list[str]:
    """What is wrong with a run that is to be gone or whole."""
    with Store.open(path) as store:
        if run in store:
            return [f"neither gone nor whole: {text}" for text in unlike(store.directory(run), before)]
    return [f"run {run} is gone but for its name"] if (path / "runs" / run).exists() else []


def names(path: Path) -> set[str]:
    """All that there is below ``runs``."""
    return {entry.name for entry in (path / "runs").iterdir()}
