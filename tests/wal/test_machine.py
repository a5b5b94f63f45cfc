"""A store against a plain Python model, under any sequence of users' actions and disasters."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

from florlog_wal import (
    Abort,
    Begin,
    CheckpointBegin,
    CheckpointEnd,
    MissingPage,
    NoSuchRecord,
    PageEntry,
    Record,
    RunBegin,
    RunEnd,
    RunLog,
    compact,
    decode_table,
    encode_table,
    gc,
    page_digest,
    verify,
)
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.wal.samples import commit, run_begin

LONG_WINDOW_SECONDS = 3600.0
"""Commits happen only at sync, so a copy of the directory is what a kill at that moment leaves."""


class Machine(RuleBasedStateMachine):
    """The model: the log as a dict of LSN to record, what of it is durable, the pages, the runs."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.generation = 0
        self.log: dict[int, tuple[int, Record]] = {}
        self.last = self.durable = 0
        self.pages: dict[bytes, bytes] = {}
        self.session = 0
        self.reader: RunLog | None = None
        self.store: RunLog | None = None

    @property
    def path(self) -> Path:
        return self.root / f"store{self.generation}"

    @initialize(recorded=st.lists(st.booleans(), max_size=2))
    def create(self, recorded: list[bool]) -> None:
        """With up to two runs, because single steps seldom make something that can be collected."""
        self.open()
        for run, half in zip("ab", recorded, strict=False):
            self.begin_run(run, ord(run), half)

    def teardown(self) -> None:
        for store in (self.store, self.reader):
            if store is not None:
                store.close()
        shutil.rmtree(self.root)

    def append(self, record: Record, prev: int = 0) -> int:
        assert self.store is not None
        session = 0 if isinstance(record, RunBegin) else self.session
        lsn = self.store.append(record, session=session, prev=prev)
        assert lsn == self.last + 1
        self.last = lsn
        self.log[lsn] = (session or lsn, record)
        return lsn

    writing = precondition(lambda self: self.store is not None)
    in_session = precondition(lambda self: self.store is not None and self.session)
    closed = precondition(lambda self: self.store is None)

    @closed
    @rule()
    def open(self) -> None:
        self.store = RunLog.open(
            self.path, mode="w", window=LONG_WINDOW_SECONDS, log_map_size=1 << 16, page_map_size=1 << 16
        )
        self.durable = self.last

    @writing
    @rule()
    def close(self) -> None:
        assert self.store is not None
        self.store.close()
        self.store, self.durable = None, self.last

    @writing
    @rule(run=st.sampled_from("abcd"), seed=st.integers(0, 200), half=st.booleans())
    def begin_run(self, run: str, seed: int, half: bool) -> None:
        """With an image of its own, or half of one."""
        self.session = self.append(run_begin(run))
        self.checkpoint(seed, 500, half)

    @in_session
    @rule(count=st.integers(1, 40), value=st.one_of(st.floats(), st.text(), st.binary(max_size=3000)))
    def iterations(self, count: int, value: Any) -> None:
        for index in range(count):
            self.append(commit(index, value=[value]))

    @in_session
    @rule(index=st.integers(0, 5), fails=st.booleans())
    def nested_iteration(self, index: int, fails: bool) -> None:
        outer = self.append(Begin(0, index))
        inner = self.append(commit(0, loop=outer), prev=outer)
        self.append(Abort(0, index, "why") if fails else commit(index), prev=inner)

    @in_session
    @rule(seed=st.integers(0, 5), size=st.integers(0, 20_000), half=st.booleans())
    def checkpoint(self, seed: int, size: int, half: bool) -> None:
        assert self.store is not None
        begin = self.append(CheckpointBegin(0, seed))
        pages = [bytes([seed, k]) * size for k in range(3)]
        table = encode_table(
            {"w": PageEntry("tensor", "uint8", (6 * size,), 6 * size, tuple(map(page_digest, pages)))}
        )
        for page in (*pages, table):
            self.pages[page_digest(page)] = page
        self.store.put_pages([*pages, table])
        if not half:
            self.append(CheckpointEnd(begin, page_digest(table), 6 * size, 0, 0.0, 0.0), prev=begin)

    @in_session
    @rule()
    def end_run(self) -> None:
        self.append(RunEnd("complete", 1.0, None))
        self.session = 0

    @writing
    @rule()
    def sync(self) -> None:
        assert self.store is not None
        assert self.store.sync() == self.last
        self.durable = self.last

    def crash(self) -> None:
        """Go on with a copy of the directory as it is now, as if the process that wrote it were dead."""
        assert self.store is not None
        if self.reader is not None:
            self.reader.close()
            self.reader = None
        old = self.path
        self.generation += 1
        shutil.copytree(old, self.path)
        self.store.close()
        self.store = None
        shutil.rmtree(old)

    @writing
    @rule()
    def kill(self) -> None:
        self.crash()

    @writing
    @rule(seed=st.integers(0, 2**32))
    def power_cut(self, seed: int) -> None:
        """What LMDB synced stays; of the tail any sectors stay, the others are older or zero."""
        self.crash()
        choose = random.Random(seed)
        keep = choose.choice([0.0, 0.5, 0.95])
        for segment in self.path.glob("tail.*"):
            data = bytearray(segment.read_bytes())
            used = len(data.rstrip(b"\0"))
            for at in range(0, used, 512):
                if choose.random() > keep:
                    data[at : at + 512] = bytes(len(data[at : at + 512]))
            segment.write_bytes(data)
        with RunLog.open(self.path) as store:
            found = store.last_lsn
        assert self.durable <= found <= self.last
        self.last = found
        self.log = {lsn: item for lsn, item in self.log.items() if lsn <= found}
        self.session = self.session if self.session in self.log else 0

    @precondition(lambda self: self.log)
    @rule(bound=st.none() | st.just(0.2), budget=st.none() | st.integers(0, 100_000))
    def collect(self, bound: float | None, budget: int | None) -> None:
        if self.store is not None:
            self.close()
        report = gc(self.path, redo_bound=bound, budget=budget)
        assert (report.runs, report.busy, report.damaged) == ([], [], [])
        with RunLog.open(self.path) as store:
            left = {entry.lsn for entry in store.scan()}
        # thinning is tested elsewhere; of a run that stays only CheckpointEnds may be removed
        ends = [lsn for lsn, (_, record) in self.log.items() if isinstance(record, CheckpointEnd)]
        for lsn in self.log.keys() - left:
            assert lsn in ends[:-1]
            assert bound is not None or budget is not None
            del self.log[lsn]
        self.durable = self.last
        needed = set()
        for _, record in self.log.values():
            if isinstance(record, CheckpointEnd):
                needed |= {record.table, *self.named(record.table)}
        self.pages = {digest: page for digest, page in self.pages.items() if digest in needed}
        assert verify(self.path).pages == len(self.pages)  # nothing stays that nothing needs

    def named(self, table: bytes) -> list[bytes]:
        return [digest for entry in decode_table(self.pages[table]).values() for digest in entry.pages]

    @closed
    @rule()
    def compacted(self) -> None:
        if self.reader is not None:
            self.reader.close()
            self.reader = None
        old = self.path
        self.generation += 1
        compact(old, self.path)
        self.durable = self.last
        shutil.rmtree(old)

    @rule()
    def open_a_reader(self) -> None:
        if self.reader is None:
            self.reader = RunLog.open(self.path)

    @precondition(lambda self: self.reader is not None)
    @rule()
    def close_the_reader(self) -> None:
        assert self.reader is not None
        self.reader.close()
        self.reader = None

    @invariant()
    def readers_see_the_model(self) -> None:
        for store in (self.store, self.reader):
            if store is None:
                continue
            assert {e.lsn: (e.session, repr(e.record)) for e in store.scan()} == {
                lsn: (session, repr(record)) for lsn, (session, record) in self.log.items()
            }
            assert store.last_lsn == self.last
            assert store.durable_lsn == self.durable
            starts = [lsn for lsn, (_, record) in self.log.items() if isinstance(record, RunBegin)]
            assert [info.lsn for info in store.sessions()] == starts
            for digest, page in self.pages.items():
                assert store.get_page(digest) == page
            self.absent(store)

    def absent(self, store: RunLog) -> None:
        try:
            store.record(self.last + 1)
        except NoSuchRecord:
            pass
        else:
            raise AssertionError("a record beyond the end")
        try:
            store.get_page(os.urandom(16))
        except MissingPage:
            pass
        else:
            raise AssertionError("a page of a random digest")

    @precondition(lambda self: self.generation or self.store)
    @rule()
    def the_store_verifies(self) -> None:
        report = verify(self.path)
        assert report.ok, report.problems
        assert report.records == len(self.log)


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
