"""The state of one run: what it tracks, what its frames carry, random generators and settings.

It is captured as one tree for each name, for an image or to be compared with one, and put back *in place*: the script's
own objects stay the same objects.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

import torch

from florlog.errors import ChangedError, ImageError, TrackError
from florlog.following.stack import OpenLoop, gives_state_of, places_of
from florlog.images.imager import SavedState
from florlog.recording.entry_state import EntryState, entry_state, restore_entry
from florlog.recording.fingerprints import StateFingerprint
from florlog.recording.gradient_lives import GradientLives
from florlog.recording.passing_over import PassingOver
from florlog.recording.putting_back import putting_back
from florlog.state.adapters import Adapter, adapter, untried
from florlog.state.boundary_trees import ENVIRONMENT, HEAP, SETTINGS, Trees
from florlog.state.cursors import passed_over
from florlog.state.derived import Derived
from florlog.state.filling import fill, lies_in_graph
from florlog.state.heap.graph import Graph
from florlog.state.heap.image import flattened, graph_of
from florlog.state.item_sources import parts_of
from florlog.state.left_out import LEFT_OUT, NO_GRADIENTS, Gradients, is_left_out, take_out
from florlog.state.random_generators import Randomness
from florlog.state.settings import Settings
from florlog.state.tree import flatten
from florlog.state.variables import Carried, IsAdded
from florlog.state.wrappers import advance, bare, counters


class RunState:
    """Captures and restores the state of one run; ``warn`` is given a warning and the reason for it."""

    def __init__(self, warn: Callable[[str, str], None]) -> None:
        self.is_added: IsAdded | None = None  # in a replay
        self.awaited: set[str] = set()  # names that a restored image has and nobody tracked yet
        self.finds = False
        """Whether what is tracked was found in the program's variables; the program itself names nothing then."""
        self._sampled = StateFingerprint()
        self.sampled = self._sampled.digest
        self._warn = warn
        self._tracked: dict[str, Adapter] = {}
        self._objects: dict[str, Any] = {}
        self._random = Randomness()
        self._settings = Settings()
        self.passing = PassingOver(self._objects, self._random, self.sampled)
        self._derived = Derived(self._random, warn)
        self._carried = Carried()
        self._gradients = GradientLives(self._carried.files)

    def track(self, name: str, target: Any) -> None:
        """Include an object under its name.  Raises `TrackError` where its state cannot be shown under it.

        Such an object is in images as whatever the program's variables reach.
        """
        self.awaited.discard(name)
        self._include(name, target)
        try:
            self._tracked[name] = adapter(name, target)
        except BaseException:
            self._tracked.pop(name, None)
            raise

    def _include(self, name: str, target: Any) -> None:
        """What is tracked anew comes last, in images as in the fingerprint."""
        if self._objects.get(name) is not target:
            self._leave_out(name)
        self._objects[name] = target
        if isinstance(target, torch.nn.Module):
            self._sampled.watch(name, target)

    def _leave_out(self, name: str) -> None:
        self._tracked.pop(name, None)
        self._objects.pop(name, None)
        self._sampled.forget(name)

    def derive(self, name: str, function: Callable[[], Any]) -> None:
        """Regenerate what is tracked under a name by a function.  Raises `TrackError` for what is no function."""
        if not callable(function):
            raise TrackError(f"derived state {name!r} needs a function that regenerates it")
        self._derived.add(name, function)

    # -- capturing ---------------------------------------------------------------------------------

    def entry(self, iterable: Any) -> EntryState:
        """The random generators from which a loop draws its order when it starts."""
        return entry_state(iterable, self._random)

    def trees(
        self, loop: OpenLoop, gradients: Gradients = NO_GRADIENTS, *, without: Collection[str] = ()
    ) -> Trees:
        """The state now, a tree for each name, without those ``gradients``."""
        trees: dict[str, Any] = {
            name: made.capture() for name, made in self._tracked.items() if name not in without
        }
        left_out: list[torch.Tensor] = []
        if gradients or self.lacks_gradients():
            modules = [name for name in trees if isinstance(self._objects[name], torch.nn.Module)]
            left_out, trees[LEFT_OUT] = take_out({name: trees[name]["grads"] for name in modules}, gradients)
        trees["/rng"] = self._random.capture()
        if changed := self._settings.capture():
            trees[SETTINGS] = changed
        if variables := self._settings.environment():
            trees[ENVIRONMENT] = variables
        if loop.entry is not None and loop.count > 0:
            trees["/entry"] = loop.entry
            if loop.cursor is not None and (position := loop.cursor.position()) is not None:
                trees["/position"] = position
        flat = {name: flatten(tree, name) for name, tree in trees.items()}
        graph = self._carried.capture(
            places_of(loop),
            {name: target for name, target in self._objects.items() if name not in without},
            (tensor for _, tensors in flat.values() for _, tensor in tensors),
            left={id(self._objects[name]) for name in without if name in self._objects},
            gradients=set(map(id, left_out)),
            iterables=_iterables(loop),
            fresh=is_fresh(loop),
            is_added=self.is_added,
        )
        trees[HEAP], flat[HEAP] = graph, flattened(graph, HEAP)
        return Trees(trees, flat)

    def imaged(self, loop: OpenLoop, gradients: Gradients = NO_GRADIENTS) -> Trees:
        """As `trees`, as an image holds it: without what is derived from the rest."""
        return self.trees(loop, gradients, without=self._derived.omitted())

    def dead_gradients(self, loop: OpenLoop, *, end: bool) -> Gradients:
        """The gradients that an image leaves out here, where ``end`` says whether it is the loop's end.

        That of an outermost loop leaves out none: a program that passes over this run goes on from there.
        """
        found = self._gradients.dead(loop, self._objects, end=end)
        return NO_GRADIENTS if end and loop.depth == 1 else found

    def lacks_gradients(self) -> bool:
        """Whether a restored image has left out gradients that were not computed anew since."""
        modules = (target for target in self._objects.values() if isinstance(target, torch.nn.Module))
        return any(is_left_out(parameter.grad) for module in modules for parameter in module.parameters())

    def check_derived(self) -> None:
        """Before an image: compare what is derived with what its functions make, now and then."""
        self._derived.check(self._tracked)

    @property
    def missing(self) -> Mapping[str, str]:
        """What the last capture could not take: place -> what it is."""
        return self._carried.missing

    @property
    def missing_at_start(self) -> Mapping[str, str]:
        """What the capture before the first loop could not take, though its image holds all that is needed there."""
        return self._carried.missing_at_start

    def line_of(self, place: str) -> str:
        """Where in the source a `missing` place is, as text that goes on from it; "" if that is not known."""
        return self._carried.line_of(place)

    # -- putting back ------------------------------------------------------------------------------

    def restore(self, saved: SavedState, loop: OpenLoop, index: int, *, blind: bool) -> None:
        """Put back the state at a boundary, and the loop's data position with it.

        ``blind``: the iterations around the loop were entered on another state than the recorded one.

        Raises `ChangedError` where something that was tracked before the run's first iteration is not tracked now, and
        `ImageError`, or whatever an object of the user's raises, where the state cannot be put back.
        """
        names = set(saved.names())
        missing = {name for name in names if not name.startswith("/") and name not in self._tracked}
        if not self.finds:
            if index == 0 and missing:
                raise ChangedError(_untracked(missing))
            # Made anew and tracked in the loop's body: what it was before does not matter.
            self.awaited |= missing
        at_end = loop.recorded is not None and index == loop.recorded.count and loop.recorded.ended
        if loop.cursor is not None and index > 0 and not at_end:
            if "/entry" in names:
                loop.entry = saved.tree("/entry")
                restore_entry(loop.entry, loop.cursor.iterable, self._random)
            position = saved.tree("/position") if "/position" in names else None
            if what := passed_over(loop.cursor.iterable, position):
                self._warn(
                    f"loop {loop.name!r} goes on at item {index}: {what} produces the items before again", ""
                )
            self.go_to(loop, loop.count, index, position, placed=True)
        self._put_back_objects(saved, loop, names, stale=index > 0 or blind)
        self._derived.regenerate(self._tracked, names)
        changed = {name: saved.tree(name) if name in names else {} for name in (SETTINGS, ENVIRONMENT)}
        self._settings.restore(changed[SETTINGS], changed[ENVIRONMENT])
        self._random.restore(saved.tree("/rng"))
        if index == 0 and loop.entry is not None:
            loop.entry = self.entry(loop.cursor.iterable if loop.cursor else None)

    def go_to(
        self, loop: OpenLoop, before: int, index: int, position: Any = None, *, placed: bool = False
    ) -> None:
        """Go on with item ``index`` of what a loop runs over, which is at item ``before``.

        ``position`` and ``placed`` as of `Cursor.seek`.  Raises `ImageError` as `Cursor.seek` does.
        """
        if loop.cursor is None:
            return
        loop.cursor.seek(index, position, placed=placed)
        if loop.counters is None:
            loop.counters = [] if loop.bare or bare(loop.site) else counters(loop.iterator())
        for counter in loop.counters:
            advance(counter, index - before)

    def _put_back_objects(
        self, saved: SavedState, loop: OpenLoop, names: Collection[str], *, stale: bool
    ) -> None:
        """Put back all that the program's names reach; ``stale`` as of `Carried.restore`."""
        graph = graph_of(saved.tree(HEAP))
        found = self._put_back_graph(loop, graph, stale=stale)
        if self.finds:
            self._track_again(found)
        tracked = [name for name in self._tracked if name in names]
        filled = [name for name in tracked if lies_in_graph(self._objects[name])]
        # A load_state_dict() may change more than what it is given, also of other objects.
        self._load([name for name in tracked if name not in filled], saved, loop, graph)
        self._load([name for name in filled if not self._fill(name, saved)], saved, loop, graph)

    def _track_again(self, found: Mapping[str, Any]) -> None:
        """Track what the recording did, in its order, also what code would have made that has not run here."""
        made = {name: self._tracked.get(name) for name in found if self._objects.get(name) is found[name]}
        for name in [*self._objects]:
            self._leave_out(name)
        for name, target in found.items():
            self._include(name, target)
            with suppress(TrackError):  # it was not shown under its name then either
                self._tracked[name] = made.get(name) or untried(name, target)

    def _load(self, names: Collection[str], saved: SavedState, loop: OpenLoop, graph: Graph) -> None:
        for name in names:
            with putting_back(name):
                self._tracked[name].restore(saved.tree(name))
        if names:
            self._put_back_graph(loop, graph)

    def _fill(self, name: str, saved: SavedState) -> bool:
        with putting_back(name):
            return fill(self._tracked[name], name, saved.encoded(name), saved.tensors)

    def _put_back_graph(self, loop: OpenLoop, graph: Graph, *, stale: bool = False) -> Mapping[str, Any]:
        return self._carried.restore(
            places_of(loop), graph, self._objects, _iterables(loop), self.is_added, stale=stale
        )

    def put_back_generators(self, saved: SavedState, loop: OpenLoop, index: int) -> None:
        """Of a loop's image put back the random generators alone, as they were when the loop began.

        Those that nobody seeds differ in every process.
        """
        self._random.restore(saved.tree("/rng") if index == 0 else saved.tree("/entry")["rng"])
        if loop.entry is not None:
            loop.entry = self.entry(loop.cursor.iterable if loop.cursor else None)

    def tracked_or_raise(self) -> None:
        """Raise `ImageError` if something that a restored image has was not tracked again."""
        if self.awaited:
            raise ImageError(_untracked(self.awaited))


def is_fresh(loop: OpenLoop) -> bool:
    """Whether no iteration has run yet."""
    return loop.depth == 1 and loop.count == 0 and loop.parent.segment == 0


def _iterables(loop: OpenLoop) -> dict[str, Any]:
    """What a loop and those around it run over, as far as it is state, by depth and place."""
    found: dict[str, Any] = {}
    around: OpenLoop | None = loop
    while around is not None:
        if gives_state_of(around) and around.cursor is not None:
            parts = parts_of(around.cursor.iterable)
            found |= {f"{around.depth}.{place}": part for place, part in enumerate(parts)}
        if around.cursor is not None:
            found |= {f"{around.depth}.{place}": part for place, part in around.cursor.waiting().items()}
        around = around.parent.loop
    return found


def _untracked(missing: set[str]) -> str:
    names = ", ".join(sorted(missing))
    return f"{names} was tracked when recorded and is not now: track the same names before the loop"
