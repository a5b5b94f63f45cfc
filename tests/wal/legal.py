"""What a crash may leave of the workload's recording, and what must work afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from florlog_wal import NotAStore, RunLog, verify

from tests.wal import workload

LOST = "lost: "  # the beginning of a complaint about something promised that is missing


@dataclass
class Acks:
    """What was promised before the crash."""

    lsn: int = 0
    durable: int = 0
    pages: list[bytes] = field(default_factory=list)
    stopped: bool = False
    ended: bool = False


def read_acks(text: str) -> Acks:
    acks = Acks()
    for line in text.split("\n")[:-1]:  # a last line without its end was not written whole
        word, _, rest = line.partition(" ")
        if word == "durable":
            acks.durable = int(rest)
        elif word == "page":
            acks.pages.append(bytes.fromhex(rest))
        elif word == "stopped":
            acks.stopped = True
        elif word == "end":
            acks.ended = True
        elif word.isdecimal():
            acks.lsn = int(word)
    return acks


def check(path: Path, acks: Acks, steps: int, *, power_cut: bool, durability: str = "group") -> list[str]:
    """What is wrong with a store after a crash; if nothing, the recording is finished and checked again."""
    expected = [step.record for step in workload.script(steps)]
    promised = acks.durable if power_cut else acks.lsn
    if power_cut and durability == "sync":
        promised = max([acks.durable, *(n for n in range(1, acks.lsn + 1) if _synced(expected[n - 1]))])
    wrong: list[str] = []
    try:
        with RunLog.open(path) as store:
            found = [entry.record for entry in store.scan()]
            last = store.last_lsn
            missing = [digest for digest in acks.pages if not store.has_page(digest)]
    except NotAStore:
        if promised or acks.pages:
            return [f"{LOST}no store is left, although {promised} was promised"]
        found, last, missing = [], 0, []
    if last < promised:
        wrong.append(f"{LOST}{last} records are left, {promised} were promised")
    if last > max(acks.lsn + 1, promised):
        wrong.append(f"{last} records are left, but {acks.lsn} were appended")
    if found != expected[: len(found)] or len(found) != last:
        wrong.append("the records are not those that were appended")
    if missing:
        wrong.append(f"{LOST}{len(missing)} pages that were promised")
    if last:
        wrong += [f"verify: {problem.where}: {problem.text}" for problem in verify(path).problems]
    if not wrong:
        wrong += _finish(path, steps, last)
    return wrong


def _synced(record: object) -> bool:
    return type(record).__name__ in ("Commit", "CheckpointEnd", "RunEnd")


def _finish(path: Path, steps: int, done: int) -> list[str]:
    """Resume the recording after the crash; then everything must be as if it had not been interrupted."""
    workload.record(path, path.with_name(path.name + ".more"), steps, done=done)
    with RunLog.open(path) as store:
        found = [entry.record for entry in store.scan()]
    wrong = [f"after resuming, verify: {problem.where}: {problem.text}" for problem in verify(path).problems]
    if found != [step.record for step in workload.script(steps)]:
        wrong.append("after resuming, the log is not that of an uninterrupted recording")
    return wrong
