"""Comparing what a re-executed script does with what the log says.

Logged values are compared bit for bit, an iteration's fingerprints when it ends, and the whole state wherever
there is an image.  Values that the recording does not have are handed on to be labelled
(`florlog.following.labelling`), with what came of the comparisons around them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from florlog_recovery import Loop
from florlog_wal import RunLog, decode_value, encode_value

from florlog.following.labelling import Evidence, FoundValues
from florlog.following.omissions import Omissions
from florlog.following.outside import Outside
from florlog.following.recorded_statements import RecordedStatements
from florlog.following.stack import SAMPLE_BYTES, OpenIteration, gives_state_of
from florlog.following.trust import where
from florlog.images.imager import SavedState, differing, digests_only, page_table, state_digest
from florlog.images.snapshot import snapshot
from florlog.state.boundary_trees import ENVIRONMENT, HEAP, SEAL, SETTINGS, States
from florlog.state.heap.compare import difference
from florlog.state.heap.graph import Graph
from florlog.state.heap.image import graph_of
from florlog.state.left_out import LEFT_OUT, without_gradients

_ASIDE = (HEAP, SEAL, ENVIRONMENT)
"""What of an image is not compared by its bytes: the graph is compared as one, and the rest is this process's."""


class Checks:
    """What was compared so far in one run that re-executes a recording; ``found`` gets what cannot be compared.

    ``resuming``: values that the recording does not have are the resumed run's own, and not kept.
    """

    def __init__(
        self,
        log: RunLog,
        statements: RecordedStatements,
        omissions: Omissions,
        found: FoundValues,
        *,
        resuming: bool = False,
    ) -> None:
        self._log = log
        self._omissions = omissions
        self.statements = statements
        self._found = found
        self._resuming = resuming
        self.sampled = False  # words of the parameters were compared when the last iteration ended
        self.blind = False  # the state is not the recorded one, and about to be replaced
        self.alarm: Callable[[str], None] = lambda difference: None
        self.differences: list[str] = []
        self.outside: Outside | None = None
        self.excused: list[str] = []  # what differs, and comes from outside
        self._from_image = False  # the state was an image's, or was compared with one
        self._unseeded: dict[str, str] = {}
        """Parts of generators that the set-up leaves in another state, and where that was seen."""
        self._difference = ""
        self._local = ""
        self._compared = 0
        self._closed = 0  # comparisons of what an iteration, or a state, was as a whole
        self._unread = False  # an item was received that cannot be compared, and the state was not since
        self._sampled = False  # only a sample of an item was compared, and execution went on from there
        self.settled: tuple[Loop, int] | None = None  # the last boundary with the recorded state
        self.before = 0, 0, 0  # how many values, differences and pieces passed over there were before that

    def excuse(self, outside: Outside) -> None:
        """Let what comes from outside differ, as it may in each process."""
        self.outside = outside

    @property
    def unchecked(self) -> bool:
        """Whether the set-up produced values, and the state that it made has not been compared yet."""
        return self._found.waiting and not self._from_image

    @property
    def unlike(self) -> str:
        """A variable that was not as in an image, since the state was last restored or equal."""
        return self._local

    @property
    def lacks_fingerprint(self) -> bool:
        """Whether a value waits for a later iteration's fingerprints, as its own was too short to have them."""
        return self._found.lacks_fingerprint(self._closed)

    @property
    def evidence(self) -> Evidence:
        """What was compared up to where execution is now."""
        return Evidence(
            from_image=self._from_image,
            compared=self._compared > 0,
            difference=self._difference,
            local=self._doubted_state,
            skipped=self._omissions.unconfirmed,
            closed=self._closed,
        )

    # -- iterations --------------------------------------------------------------------------------

    def log(self, iteration: OpenIteration, site: tuple[str, int, str], name: str, value: Any) -> None:
        """A value was logged (``site``: file, line, qualified name): compare it, or keep it as found."""
        if iteration.abandoned:
            return
        file, line, _ = site
        then = self.statements.then(file, line)
        if then is not None and iteration.expected is not None:
            queue = iteration.expected.get((*then, name))
            if queue:
                recorded = queue.popleft()
                if not self.blind and (file, line) not in self._omissions.stale_statements:
                    self._compare(iteration, site, name, recorded, value)
                return
            if self.blind:
                return
            if self.statements.has_name(*then, name):
                loop = iteration.loop
                if loop is not None and loop.recorded is not None and iteration.index < loop.recorded.count:
                    self._differ(f"{name} (line {line}) is logged at {where(iteration.path)}, and was not")
                return
        if not self._resuming and not self.blind:
            self._found.keep(
                iteration,
                site,
                name,
                value,
                closed=self._closed,
                received=not self._unread,
                sampled=self._sampled,
            )

    def _compare(
        self, iteration: OpenIteration, site: tuple[str, int, str], name: str, recorded: bytes, value: Any
    ) -> None:
        line = site[1]
        self._compared += 1
        if recorded != encode_value(value):
            if self.outside is not None and self.outside.excuses(site, name):
                self.excused.append(f"{name} (line {line})")
                return
            then, now = _short(decode_value(recorded)), _short(value)
            self._differ(f"{name} (line {line}) was {then} at {where(iteration.path)}, and is {now} now")

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
        elif now and name == "data" and not gives_state_of(iteration.loop):  # the step was too short for it
            self._unread = True
            self._found.unread(iteration.path)

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
            self._omissions.undrawn = False
        for (file, line, name), left in (iteration.expected or {}).items():
            if left and (file, line) not in self._omissions.stale_then:
                self._differ(f"{name} (line {line}) was logged at {where(iteration.path)}, and is not now")

    # -- boundaries --------------------------------------------------------------------------------

    def arrive(self, loop: Loop, index: int, states: States) -> None:
        """Execution reached a boundary of a recorded loop: where there is an image, compare the whole state.

        ``states`` gives the state now.
        """
        if (image := loop.images.get(index)) is None:
            return
        saved = SavedState(self._log, image.table)
        now = states(saved.gradients)
        live = page_table(snapshot(now, flat=now.flat), digests_only)
        self._compared += 1
        self._closed += 1
        self._unread = False
        shared: list[str] = []
        if state_digest(live) != image.table:
            found = differing(saved.table, live)
            if lacking := now.get(LEFT_OUT):  # some that the image has: compared without them
                found = without_gradients(found, lacking, saved.skeleton, lambda name: now.flat[name][0])
            names = [name for name in found if name.split(".")[0] not in _ASIDE]
            shared = [name for name in names if name.split(".")[0] in saved.table or name == SETTINGS]
            here = where(loop.path(index))
            if all(name.startswith("/rng.") for name in shared) and (
                not self._from_image or self._unseeded.keys() >= set(shared)
            ):
                # The set-up drew from an RNG that nobody seeded, or nobody drew from it.
                self._unseeded |= dict.fromkeys(shared, here)
                shared = []
            unlike = self._unlike(graph_of(saved.tree(HEAP)), now[HEAP])
            if shared:
                self._differ(f"state differs at {here}: {', '.join([*filter(None, [unlike]), *shared[:4]])}")
            elif unlike:
                self._local = f"{unlike} differs at {here}"
                self._omissions.suspect(self._local)
        equal = not (shared or self._doubted_state)
        if equal:
            self._omissions.confirmed()
        self._found.label(self.evidence)
        # What differs here goes on differing: what follows does not start from the recorded state.
        if equal:
            before = self._difference
            self._settle(loop, index)
            if before:  # so something differs that no image has
                self._local = f"{before}, although the state at {where(loop.path(index))} was the same"
        self._from_image = True

    @property
    def _doubted_state(self) -> str:
        """What of the state was not as recorded, and is no difference that counts; "" if all was."""
        if self._local or not self._unseeded:
            return self._local
        *_, here = self._unseeded.values()
        return f"random numbers were not seeded alike: {', '.join([*self._unseeded][:4])} differ at {here}"

    def _unlike(self, then: Graph, now: Graph) -> str:
        """The place of the first difference between two graphs, of what is the same in every process."""
        if not (found := difference(then, now, *_aside(self._omissions.stale_names))):
            return ""
        if self.outside is None:
            return found
        noisy, clocks = self.outside.noisy(), self.outside.clock_keys()
        if not (noisy or clocks):
            return found
        if rest := difference(then, now, *_aside(self._omissions.stale_names | noisy), clocks):
            return rest
        self.excused.append(found)
        return ""

    def _differ(self, text: str) -> None:
        self._omissions.suspect(text)
        self.differences.append(text)
        self._difference = self._difference or text
        self.alarm(text)

    def _settle(self, loop: Loop, index: int) -> None:
        """Everything up to here is labelled; what follows starts from a known state."""
        self._found.label(self.evidence)
        self._difference = self._local = ""
        self.settled = loop, index
        self.before = len(self._found.values), len(self.differences), len(self._omissions.passed)

    def restored(self, loop: Loop, index: int) -> None:
        """An image is in place: everything up to here is labelled, what follows starts from a known state."""
        self._settle(loop, index)
        self._omissions.restored()
        self._unread = self._sampled = False
        self._from_image, self._unseeded = True, {}

    def end(self) -> None:
        """The run is over."""
        self._found.label(self.evidence)


def _aside(names: Collection[tuple[str, str]]) -> tuple[set[tuple[str, str]], set[str]]:
    """Of variables by code and name, and attributes with "" for the code: the former by scope, and the latter."""
    return {(_scope(code), name) for code, name in names if code}, {name for code, name in names if not code}


def _scope(code: str) -> str:
    """The scope, as graphs name it, of the code of a variable."""
    return "module __main__" if code == "<module>" else f"frame {code}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
