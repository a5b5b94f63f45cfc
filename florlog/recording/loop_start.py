"""A loop begins: what it is called, what it runs over, and where it stands.

A name that cannot be used is replaced, and an iterable that cannot be looked at costs the run its images: the training
goes on.  In a strict run both are a `LoopError`.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from florlog.errors import LoopError
from florlog.following.stack import OpenIteration, OpenLoop, Site
from florlog.program.terminal import reason, warn
from florlog.recording.closing import Closing
from florlog.recording.guided import Guided
from florlog.recording.transactions import Transactions
from florlog.state.codes import call_stack
from florlog.state.cpython import frame_of
from florlog.state.cursors import Cursor
from florlog.state.iterables import length_of, needs_entry_state
from florlog.state.same_data import identity

Steps = Generator[Any, None, None]


@dataclass(slots=True, eq=False)
class RequestedLoop:
    """What the script asks for."""

    name: str
    form: Literal["for", "with"]
    iterable: Iterable[Any] | None
    site: Site
    bare: bool = False
    """Whether it is known that nothing is wrapped around it."""
    steps: weakref.ref[Steps] | None = None
    """The generator that carries it out; it may not keep itself alive, so that a break ends it at once."""


class LoopStart:
    """The beginnings of one run's loops; ``guided``: None where no recording is followed."""

    def __init__(
        self, transactions: Transactions, guided: Guided | None, closing: Closing, *, strict: bool = False
    ) -> None:
        self.guided = guided
        self._transactions = transactions
        self._closing = closing
        self._strict = strict
        self._refused: set[str] = set()

    def made(self, call: RequestedLoop, cursor: Cursor | None) -> OpenLoop:
        """A loop, of which nothing else knows yet."""
        transactions = self._transactions
        if transactions.pending:
            self._closing.went_on()
        parent = transactions.stack[-1]
        self._closing.settle(parent)
        name = self.usable(call.name, parent)
        number = parent.names.get(name, 0) + 1
        frame = frame_of(call.site[0])
        outer = parent.loop.site[0] if parent.loop is not None else None
        return OpenLoop(
            name=name if number == 1 else f"{name}#{number}",
            form=call.form,
            parent=parent,
            site=call.site,
            stack=call_stack(frame, outer) if frame is not None else (),
            length=-1,
            data={},
            cursor=cursor,
            bare=call.bare,
            handled=id(error) if (error := sys.exception()) is not None else 0,
        )

    def enter(self, loop: OpenLoop, call: RequestedLoop) -> None:
        """The loop begins in the iteration around it."""
        iterable, transactions, parent = call.iterable, self._transactions, loop.parent
        name, _, number = loop.name.partition("#")
        parent.names[name] = int(number or 1)
        with self._looking_at(loop):
            if iterable is not None and (transactions.recording or self.guided is not None):
                loop.length, loop.data = length_of(iterable), identity(iterable)
        if self.guided is not None:
            self.guided.enter(loop)
        with self._looking_at(loop):
            followed = transactions.journal is not None or self.guided is not None
            if iterable is not None and followed and needs_entry_state(iterable):
                loop.entry = transactions.checkpointer.state.entry(iterable)
        if transactions.recording:
            transactions.log_start(loop)
        if call.form == "for":
            loop.iterator = call.steps
        elif call.steps is not None:
            parent.with_loop, loop.steps = loop, call.steps()

    def usable(self, name: str, parent: OpenIteration) -> str:
        """The name of a loop, or one in its place where it cannot be used; that is a `LoopError` in a strict run."""
        made = "".join("_" if c in "#=,/" or not c.isprintable() else c for c in str(name)) or "loop"
        if made != name:
            self.refuse(f"{name!r} cannot name a loop: use a word without # = , /", f"it is called {made!r}")
        around = {outer.split("#")[0] for outer, _ in parent.path}
        while made in around:
            self.refuse(
                f"loop {made!r} is already open around this place: give the inner loop another name",
                f"it is called '{made}_'",
            )
            made += "_"
        return made

    def refuse(self, problem: str, instead: str, *, once: str = "", follows: bool = False) -> None:
        """The script asks for what cannot be recorded so: raise that in a strict run, else say once what is done."""
        if self._strict or follows:
            raise LoopError(problem)
        if self._transactions.journal is not None and (once or problem) not in self._refused:
            self._refused.add(once or problem)
            warn(f"{problem}; {instead}")

    @contextmanager
    def _looking_at(self, loop: OpenLoop) -> Iterator[None]:
        """Within, what a loop runs over is looked at; where that fails no more images are taken."""
        try:
            yield
        except Exception as error:
            self._transactions.checkpointer.withhold()
            text = f"what loop {loop.name!r} runs over cannot be looked at: {reason(error)}"
            self.refuse(text, "no more images are taken", once=f"{loop.name.split('#')[0]} looked at")
