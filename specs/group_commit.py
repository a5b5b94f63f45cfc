"""An executable model of group commit, two environments and crashes, small enough to try everything.

The model keeps what matters for the promises and drops the rest: a record is its LSN, a page is its name, the
tail is two segments of tail frames, LMDB is a durable list and one transaction under way.  A training thread appends
and takes images, the log's thread commits, and at any point the process may be killed or the power cut.  Then
a new writer opens the store and goes on.  `explore` visits every reachable state up to a bound of appends
and crashes, and checks the promises of ``specs/durability.md`` in each.

Each rule of the design is a switch, so a test can turn one off and see which promise then breaks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple


class TailFrame(NamedTuple):
    """A record in the tail or in LMDB: its LSN, the writer that gave it, and the page it names."""

    lsn: int
    writer: int
    page: str = ""


@dataclass(frozen=True)
class Rules:
    """The rules of the design; all hold in the code."""

    pages_before_end: bool = True  # the end of an image is appended after its pages are durable
    drain_before_reuse: bool = True  # a segment is filled again only when LMDB has what it held
    dense_frames_only: bool = True  # only frames that follow LMDB's last record without a gap count
    new_segments_on_open: bool = True  # a writer starts with empty segments
    recover_tail_first: bool = True  # a writer commits the tail before its first append


@dataclass(frozen=True)
class State:
    """Disk, memory and what was promised."""

    log: tuple[TailFrame, ...] = ()  # in LMDB, durable
    pages: frozenset[str] = frozenset()  # durable
    segments: tuple[tuple[TailFrame, ...], tuple[TailFrame, ...]] = ((), ())  # as memory has them
    written: tuple[frozenset[TailFrame], frozenset[TailFrame]] = (
        frozenset(),
        frozenset(),
    )  # may be on the disk
    active: int = 0
    draining: bool = False
    putting: str = ""  # a page that is being stored
    writer: int = 1
    next_lsn: int = 1
    appended: tuple[TailFrame, ...] = ()  # by the present writer and earlier ones, as far as they survived
    promised: int = 0  # the last LSN that must survive a power cut
    crashes: int = 0


class Broken(AssertionError):  # noqa: N818 - it is the model's verdict
    """A promise that the model saw broken, with the state."""


def last(state: State) -> int:
    """LMDB's last LSN."""
    return state.log[-1].lsn if state.log else 0


def visible(state: State, frames: list[TailFrame], rules: Rules) -> tuple[TailFrame, ...]:
    """The log as a reader sees it: LMDB, followed by tail frames."""
    found = list(state.log)
    if rules.dense_frames_only:
        by_lsn = {frame.lsn: frame for frame in frames}
        while (at := (found[-1].lsn if found else 0) + 1) in by_lsn:
            found.append(by_lsn[at])
    else:
        found += sorted(frame for frame in frames if frame.lsn > last(state))
    return tuple(found)


def steps(state: State, rules: Rules, appends: int, crashes: int) -> Iterator[tuple[str, State]]:
    """Everything that may happen next."""
    if state.next_lsn <= appends:
        yield "append", _append(state, "")
        page = f"p{state.next_lsn}"
        if not state.putting:
            yield "put pages", replace(state, putting=page)
    if state.putting:
        durable = replace(state, pages=state.pages | {state.putting}, putting="")
        if state.next_lsn <= appends:
            yield "pages durable, append the image's end", _append(durable, state.putting)
            if not rules.pages_before_end:
                yield "append the image's end first", _append(state, state.putting)
    other = 1 - state.active
    if not state.draining and state.segments[state.active]:
        turned = replace(state, active=other, draining=True)
        yield "swap the segments", _empty(turned, other)
    if state.draining:
        batch = state.segments[1 - state.active]
        new = tuple(frame for frame in batch if frame.lsn > last(state))
        log = state.log + new
        yield "commit", replace(state, log=log, draining=False, promised=max(state.promised, last_of(log)))
        if not rules.drain_before_reuse and state.segments[state.active]:
            yield "reuse too early", _empty(replace(state, active=other), other)
    if state.crashes < crashes:
        yield "kill", _kill(state, rules)
        yield from _power_cuts(state, rules)


def last_of(log: tuple[TailFrame, ...]) -> int:
    return log[-1].lsn if log else 0


def _append(state: State, page: str) -> State:
    frame = TailFrame(state.next_lsn, state.writer, page)
    held, written = state.segments[state.active], state.written[state.active]
    filled = _fill(state, state.active, (*held, frame))
    pair = (written | {frame}, state.written[1])
    if state.active:
        pair = (state.written[0], written | {frame})
    return replace(filled, written=pair, next_lsn=state.next_lsn + 1, appended=(*state.appended, frame))


def _empty(state: State, number: int) -> State:
    """Fill a segment from its beginning; its earlier frames may remain further on, in memory and on the disk."""
    return _fill(state, number, ())


def _fill(state: State, number: int, frames: tuple[TailFrame, ...]) -> State:
    first, second = state.segments
    return replace(state, segments=(first, frames) if number else (frames, second))


def _kill(state: State, rules: Rules) -> State:
    """The process dies; mapped memory stays."""
    frames = [frame for held in state.written for frame in held]
    found = visible(state, frames, rules)
    if found != state.appended:
        raise Broken(f"a kill leaves {found} of {state.appended}: {state}")
    return _reopen(state, found, list(state.written), rules)


def _power_cuts(state: State, rules: Rules) -> Iterator[tuple[str, State]]:
    """The power is cut; any subset of the tail frames was written back."""
    frames = sorted({frame for held in state.written for frame in held if frame.lsn > last(state)})
    for count in range(len(frames) + 1):
        for kept in combinations(frames, count):
            found = visible(state, list(kept), rules)
            if found != state.appended[: len(found)]:
                raise Broken(f"a power cut leaves {found}, not a prefix of {state.appended}: {state}")
            if last_of(found) < state.promised:
                raise Broken(f"a power cut leaves {found}, {state.promised} was promised: {state}")
            left = [frozenset(held & set(kept)) for held in state.written]
            yield f"power cut, {kept} kept", _reopen(state, found, left, rules)


def _reopen(
    state: State, found: tuple[TailFrame, ...], left: list[frozenset[TailFrame]], rules: Rules
) -> State:
    """A new writer opens the store after a crash."""
    missing = [frame.page for frame in found if frame.page and frame.page not in state.pages]
    if missing:
        raise Broken(f"an image names {missing}, which is not durable: {state}")
    log = found if rules.recover_tail_first else state.log
    if log != found:
        raise Broken(f"opening again leaves {log} of {found}, which a reader has seen: {state}")
    written = (frozenset(), frozenset()) if rules.new_segments_on_open else (left[0], left[1])
    return State(
        log=log, pages=state.pages, written=written, writer=state.writer + 1, next_lsn=last_of(log) + 1,
        appended=log, promised=last_of(log), crashes=state.crashes + 1,
    )  # fmt: skip


def explore(rules: Rules, appends: int, crashes: int) -> int:
    """Visit every reachable state and return their number.  Raises `Broken` if a promise does not hold."""
    start = State()
    seen = {start}
    todo = [start]
    while todo:
        state = todo.pop()
        for _, after in steps(state, rules, appends, crashes):
            if after not in seen:
                seen.add(after)
                todo.append(after)
    return len(seen)
