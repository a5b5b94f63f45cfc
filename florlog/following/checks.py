"""Comparing what a re-executed script does with what the log says, and labelling values by the outcome.

Logged values are compared bit for bit, an iteration's fingerprints when it ends, and the whole state wherever
there is an image.  Values that the recording does not have are kept as found, and wait for their label until the next
such place: what differs up to there may have changed them.
"""

from __future__ import annotations

import functools
import re
from collections import deque
from collections.abc import Callable, Collection, Mapping
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from florlog_recovery import Loop, RunTree
from florlog_wal import Commit, StackFrame, Store, Values, decode_value, encode_value

from florlog.following.outside import Outside
from florlog.following.stack import Expected, OpenIteration, OpenLoop, gives_state_of
from florlog.following.trust import (
    CONSISTENT,
    DIVERGED,
    PROVEN,
    RULES,
    UNVERIFIED,
    Circumstances,
    FoundValue,
    Readings,
    where,
)
from florlog.images.imager import SavedState, differing, digests_only, page_table, state_digest
from florlog.images.snapshot import snapshot
from florlog.program.process import this_process
from florlog.state.boundary_trees import ENVIRONMENT, HEAP, SEAL, SETTINGS, Trees
from florlog.state.heap.compare import difference
from florlog.state.heap.graph import Graph
from florlog.state.heap.image import graph_of

if TYPE_CHECKING:  # source analysis is for replays; importing florlog does not wait for it
    from florlog.source.skip.skipping import Skipped


SAMPLE_BYTES = 8
"""The length of an item's fingerprint that covers a sample of the item; one of the whole item is longer."""
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{6,}")  # as `object.__repr__` writes it
_ASIDE = (HEAP, SEAL, ENVIRONMENT)
"""What of an image is not compared by its bytes: the graph is compared as one, and the rest is this process's."""


class Checks:
    """What was compared so far in one run that re-executes a recording.

    ``lines`` maps a source file to its path when recorded and its lines' numbers then; None: unchanged.
    ``resuming``: values that the recording does not have are the resumed run's own, and not kept.
    """

    def __init__(
        self,
        store: Store,
        tree: RunTree,
        lines: Mapping[str, tuple[str, Mapping[int, int]]] | None,
        readings: Readings,
        *,
        resuming: bool = False,
    ) -> None:
        self.found: list[FoundValue] = []
        self.sampled = False  # words of the parameters were compared when the last iteration ended
        self.alarm: Callable[[str], None] = lambda difference: None
        self.differences: list[str] = []
        self._outside: Outside | None = None
        self.excused: list[str] = []  # what differs, and comes from outside
        self._store = store
        self._statements = tree.statements
        self._lines = lines
        self._readings = readings
        self._resuming = resuming
        self._base = "start"
        self._unseeded: dict[
            str, str
        ] = {}  # parts of generators that the set-up leaves otherwise, and where seen
        self._difference = ""
        self._local = ""
        self._compared = 0
        self._closed = 0  # comparisons of what an iteration, or a state, was as a whole
        self._unread = False  # an item was received that cannot be compared, and the state was not since
        self._sampled = False  # only a sample of an item was compared, and execution went on from there
        self._pending: list[FoundValue] = []
        self._skips: list[str] = []  # loops skipped since the state was last known to be the recorded one
        self._skipped = ""  # the last loop skipped since an image was restored
        self._stale_statements: set[tuple[str, int]] = set()  # log statements whose values are stale
        self._stale_then: set[tuple[str, int]] = set()  # the same, as they were when recorded
        self._stale: set[tuple[str, str]] = set()  # variables that are not as recorded
        self.undrawn = False  # code was passed over, and no random numbers were compared since
        self.mistaken = ""  # a difference that may come from a loop that was skipped
        self.settled: tuple[Loop, int] | None = None  # the last boundary with the recorded state
        self.passed: list[int] = []  # the number of each piece of code that was passed over
        self.before = 0, 0, 0  # how many values, differences and pieces passed over there were before that

    def excuse(self, outside: Outside) -> None:
        """Let what comes from outside differ, as it may in each process."""
        self._outside = outside

    @property
    def unchecked(self) -> bool:
        """Whether the set-up produced values, and the state that it made has not been compared yet."""
        return bool(self._pending) and self._base == "start"

    @property
    def comparisons(self) -> int:
        """How often something was compared."""
        return self._compared

    @property
    def unlike(self) -> str:
        """A variable that was not as in an image, since the state was last restored or equal."""
        return self._local

    @property
    def lacks_fingerprint(self) -> bool:
        """Whether a value waits for a later iteration's fingerprints, as its own was too short to have them."""
        for found in reversed(self._pending):
            if found.closed != self._closed:
                break
            if found.unsteady or not found.received:
                return True
        return False

    # -- iterations --------------------------------------------------------------------------------

    def expect(self, iteration: OpenIteration) -> None:
        """An iteration begins: read what it logged."""
        expected: Expected = {}
        iteration.expected = expected
        loop, node = iteration.loop, iteration.recorded
        lsns = list(node.values) if node is not None else []
        recorded = loop.recorded if loop is not None else None
        if recorded is not None and iteration.index < recorded.count:
            lsns.append(recorded.commits[iteration.index])
        for lsn in lsns:
            entry = self._store.record(lsn)
            assert isinstance(entry.record, Commit | Values)
            if isinstance(entry.record, Commit):
                iteration.commit = entry.record
            for statement, name, value in entry.record.values:
                site = self._statements[entry.session][statement]
                expected.setdefault((site.file, site.line, name), deque()).append(encode_value(value))

    def _then(self, file: str, line: int) -> tuple[str, int] | None:
        """A source position as it was when recorded, None for code that the recording does not have."""
        if self._lines is None or file not in self._lines:
            return file, line
        recorded, lines = self._lines[file]
        return (recorded, lines[line]) if line in lines else None

    def was_there(self, file: str, line: int) -> bool:
        """Whether a statement was in the program when it was recorded."""
        return self._resuming or self._then(file, line) is not None

    def is_added(self, value: Any) -> bool:
        """Whether something is a function, or has one, of code that the recorded program does not have."""
        if isinstance(value, functools.partial):
            value = value.func
        if isinstance(value, MethodType):
            value = value.__func__
        if not isinstance(value, FunctionType):
            return False
        return not self.was_there(value.__code__.co_filename, value.__code__.co_firstlineno)

    def log(self, iteration: OpenIteration, site: tuple[str, int, str], name: str, value: Any) -> None:
        """A value was logged (``site``: file, line, qualified name): compare it, or keep it as found."""
        if iteration.abandoned:
            return
        file, line, qualname = site
        then = self._then(file, line)
        if then is not None and iteration.expected is not None:
            queue = iteration.expected.get((*then, name))
            if queue:
                recorded = queue.popleft()
                if (file, line) not in self._stale_statements:
                    self._compare(iteration, site, name, recorded, value)
                return
            if self._has_name(*then, name):
                loop = iteration.loop
                if loop is not None and loop.recorded is not None and iteration.index < loop.recorded.count:
                    self._differ(f"{name} (line {line}) is logged at {where(iteration.path)}, and was not")
                return
        if not self._resuming:
            found = FoundValue(
                file,
                line,
                qualname,
                name,
                iteration.path,
                value,
                closed=self._closed,
                segment=iteration.segment,
            )
            around = None if iteration.loop is None else _present(iteration.loop)
            found.unsteady = self._readings.unsteady.get((around, file, line), "")
            found.outside = self._read_from_outside(found)
            found.received = not self._unread
            found.reads_item = (file, line) in self._readings.items
            found.sampled = self._sampled or _has_sampled_item(iteration)
            self.found.append(found)
            self._pending.append(found)

    def _read_from_outside(self, found: FoundValue) -> str:
        """What is read from outside for a value that is being logged, "" if nothing is."""
        if read := self._readings.outside.get((found.file, found.line), ""):
            return read
        if isinstance(found.value, str) and _ADDRESS.search(found.value):
            return "contains the address of an object"
        if this_process.watch is None:  # as in an added function that recorded code calls
            return self._readings.alone.get((found.file, found.line), "")
        return str(this_process.watch.reason)

    def _compare(
        self, iteration: OpenIteration, site: tuple[str, int, str], name: str, recorded: bytes, value: Any
    ) -> None:
        line = site[1]
        self._compared += 1
        if recorded != encode_value(value):
            if self._outside is not None and self._outside.excuses(site, name):
                self.excused.append(f"{name} (line {line})")
                return
            then, now = _short(decode_value(recorded)), _short(value)
            self._differ(f"{name} (line {line}) was {then} at {where(iteration.path)}, and is {now} now")

    def _has_name(self, file: str, line: int, name: str) -> bool:
        return any(
            statement.file == file and statement.line == line and name in statement.names
            for table in self._statements.values()
            for statement in table.values()
        )

    def received(self, iteration: OpenIteration) -> bool:
        """Compare what an iteration received, as its commit is not to be reached; whether that can be done."""
        if (record := iteration.commit) is None:
            return True
        if iteration.data and not record.data:
            return False
        self._print("data", iteration, iteration.data, record.data)
        return True

    def _print(self, name: str, iteration: OpenIteration, now: bytes, then: bytes) -> None:
        if now and len(now) == len(then):
            self._compared += 1
            if now != then:
                self._differ(f"{name} differ at {where(iteration.path)}")
            self._sampled = self._sampled or (name == "data" and len(now) == SAMPLE_BYTES)
        elif (
            now and name == "data" and not gives_state_of(iteration.loop)
        ):  # a step too short for all fingerprints
            self._unread = True
            for found in reversed(self._pending):
                if found.path != iteration.path:
                    break
                found.received = False

    def committed(self, iteration: OpenIteration, prints: tuple[bytes, bytes, bytes]) -> None:
        """An iteration ran to its end: compare its fingerprints, and whether it logged all that it did."""
        if (record := iteration.commit) is None:
            return
        self.sampled = bool(record.state and prints[2])
        names = ("random numbers", "data", "sampled parameters")
        for name, now, then in zip(names, prints, (record.rng, record.data, record.state), strict=True):
            self._print(name, iteration, now, then)
        if self.sampled:
            self._unread = False
        if self.sampled or (record.rng and not self._unread):
            self._closed += 1
        if record.rng and prints[0]:
            self.undrawn = False
        for (file, line, name), left in (iteration.expected or {}).items():
            if left and (file, line) not in self._stale_then:
                self._differ(f"{name} (line {line}) was logged at {where(iteration.path)}, and is not now")

    # -- boundaries --------------------------------------------------------------------------------

    def arrive(self, loop: Loop, index: int, trees: Callable[[], Trees]) -> None:
        """Execution reached a boundary of a recorded loop: where there is an image, compare the whole state.

        ``trees`` gives the state now.
        """
        if (image := loop.images.get(index)) is None:
            return
        now = trees()
        live = page_table(snapshot(now, flat=now.flat), digests_only)
        self._compared += 1
        self._closed += 1
        self._unread = False
        shared: list[str] = []
        if state_digest(live) != image.table:
            saved = SavedState(self._store, image.table)
            names = [name for name in differing(saved.table, live) if name.split(".")[0] not in _ASIDE]
            shared = [name for name in names if name.split(".")[0] in saved.table or name == SETTINGS]
            here = where(loop.path(index))
            if all(name.startswith("/rng.") for name in shared) and (
                self._base == "start" or self._unseeded.keys() >= set(shared)
            ):
                # The set-up drew from an RNG that nobody seeded, or nobody drew from it.
                self._unseeded |= dict.fromkeys(shared, here)
                shared = []
            unlike = self._unlike(graph_of(saved.tree(HEAP)), now[HEAP])
            if shared:
                self._differ(f"state differs at {here}: {', '.join([*filter(None, [unlike]), *shared[:4]])}")
            elif unlike:
                self._local = f"{unlike} differs at {here}"
                self._suspect(self._local)
        equal = not (shared or self._doubted_state)
        if equal:
            self._skips, self.undrawn = [], False
        self._label()
        # What differs here goes on differing: what follows does not start from the recorded state.
        if equal:
            self._settle(loop, index)
        self._base = "image"

    @property
    def _doubted_state(self) -> str:
        """What of the state was not as recorded, and is no difference that counts; "" if all was."""
        if self._local or not self._unseeded:
            return self._local
        *_, here = self._unseeded.values()
        return f"random numbers were not seeded alike: {', '.join([*self._unseeded][:4])} differ at {here}"

    def _unlike(self, then: Graph, now: Graph) -> str:
        """The place of the first difference between two graphs, of what is the same in every process."""
        if not (found := difference(then, now, *_aside(self._stale))):
            return ""
        noisy = frozenset() if self._outside is None else self._outside.noisy()
        if noisy and not difference(then, now, *_aside(self._stale | noisy)):
            self.excused.append(found)
            return ""
        return found

    def skipped(self, what: str, left: Skipped) -> None:
        """A loop or a piece was not run; ``left``: what is not as recorded then, until an image is restored."""
        self._skips.append(what)
        self._skipped = what
        self._stale_statements |= left.told
        self._stale_then |= {then for place in left.told if (then := self._then(*place)) is not None}
        self._stale |= left.stale

    @property
    def stale(self) -> bool:
        """Whether variables may lack what a skipped loop would have made."""
        return bool(self._skipped)

    def failed(self, text: str) -> bool:
        """The script failed; whether that may come from a loop that was skipped."""
        if self._skipped and not self.mistaken:
            self.mistaken = f"{text}, and {self._skipped} had been skipped"
        return bool(self.mistaken)

    def _suspect(self, text: str) -> None:
        if self._skips and not self.mistaken:
            self.mistaken = f"{text}, and {self._skips[-1]} had been skipped"

    def _differ(self, text: str) -> None:
        self._suspect(text)
        self.differences.append(text)
        self._difference = self._difference or text
        self.alarm(text)

    def trust(self, doubt: str) -> tuple[str, str]:
        """How far the state is proven where execution is now, and what is against more; ``doubt``: what else is."""
        if self._difference:
            return DIVERGED, self._difference
        if self._base != "image":
            why = "no image vouches for the state from which it was computed"
            return (CONSISTENT if self._compared else UNVERIFIED), why
        doubt = self._doubted_state or doubt
        return (CONSISTENT, doubt) if doubt else (PROVEN, "")

    def _label(self) -> None:
        for found in self._pending:
            if self._difference:
                found.trust, found.detail = DIVERGED, self._difference
            elif self._base == "image":
                doubt = self._doubt(found)
                found.trust, found.detail = (CONSISTENT, doubt) if doubt else (PROVEN, "")
            else:
                found.trust = CONSISTENT if self._compared else UNVERIFIED
                found.detail = found.outside
        self._pending = []

    def _doubt(self, found: FoundValue) -> str:
        """What is against a value that comes after an image, and up to here nothing differed."""
        here = Circumstances(
            self._doubted_state, self._skips[-1] if self._skips else "", found.closed == self._closed
        )
        return next((doubt for rule in RULES.values() if (doubt := rule(found, here))), "")

    def _settle(self, loop: Loop, index: int) -> None:
        """Everything up to here is labelled; what follows starts from a known state."""
        self._label()
        self._difference = self._local = ""
        self.settled, self.before = (loop, index), (len(self.found), len(self.differences), len(self.passed))

    def restored(self, loop: Loop, index: int) -> None:
        """An image is in place: everything up to here is labelled, what follows starts from a known state."""
        self._settle(loop, index)
        self._skips, self._skipped, self.undrawn = [], "", False
        self._unread = self._sampled = False
        self._stale_statements, self._stale_then, self._stale = set(), set(), set()
        self._base, self._unseeded = "image", {}

    def end(self) -> None:
        """The run is over."""
        self._label()


def _has_sampled_item(iteration: OpenIteration | None) -> bool:
    """Whether of the item of an open iteration, or of one around it, there is no more than a sample to compare."""
    while iteration is not None:
        loop = iteration.loop
        whole = len(iteration.data) not in (0, SAMPLE_BYTES)  # none: such as tensors on a GPU
        if loop is not None and loop.form == "for" and not whole and not gives_state_of(loop):
            return True
        iteration = None if loop is None else loop.parent
    return False


def _aside(names: Collection[tuple[str, str]]) -> tuple[set[tuple[str, str]], set[str]]:
    """Of variables by code and name, and attributes with "" for the code: the former by scope, and the latter."""
    return {(_scope(code), name) for code, name in names if code}, {name for code, name in names if not code}


def _scope(code: str) -> str:
    """The scope, as graphs name it, of the code of a variable."""
    return "module __main__" if code == "<module>" else f"frame {code}"


def _present(loop: OpenLoop) -> StackFrame:
    code, line = loop.site
    return code.co_filename, code.co_qualname, line


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
