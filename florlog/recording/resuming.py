"""A run that goes on: guided to its frontier, and proven to be the recorded run before it records anything new.

What is re-executed is compared with the log, and whole states with its images.  Where an image cannot be restored, or
what follows it differs, the resume goes back to an earlier one, at last to the run's beginning.  By then the process is
in a state that nobody knows, so it starts over (`florlog.program.restart`) and hands itself what it has learnt, a
`WentBack`.  The session that failed leaves its `RunBegin` and a note in the log, as if it had been killed.

A run that differs even from its beginning is not resumed: that is a `DivergedError`, or, with ``resume="auto"``, a new
run in its place, because the training has to start.  ``florlog resume --force`` goes on, and the log says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn

from florlog_recovery import FORCED, Loop, Node, Plan, RunTree, last_restore
from florlog_wal import Note, RunLog

from florlog.errors import ChangedError, DivergedError, FlorlogError, ImageError
from florlog.following.failed_images import (
    Boundary,
    cannot_be_restored,
    instead,
    named,
    not_entered,
    without,
    without_gradients,
)
from florlog.following.files_made import changed_text
from florlog.following.guide import Guide
from florlog.following.hidden_files import HiddenFiles
from florlog.following.outside import Outside, present_texts
from florlog.following.stack import OpenLoop
from florlog.program import restart
from florlog.program.environment import main_script, own_directories, rank
from florlog.program.process import this_process
from florlog.program.terminal import reason, report
from florlog.recording.journal import Journal
from florlog.state.left_out import READ

WENT_BACK = "went back"
"""The kind of the note with which a session ends that has gone back."""
_DIFFERS = "differs"


@dataclass(frozen=True, slots=True)
class WentBack:
    """What earlier starts of this process have learnt of a run."""

    run: str = ""
    unusable: tuple[int, ...] = ()  # LSNs of images
    reasons: tuple[str, ...] = ()  # for which one failed
    anew: bool = False  # the run cannot be resumed: begin another one
    blind: bool = True  # whether iterations are entered blindly
    whole: bool = False  # whether the runs that the program opens before are executed and not passed over

    def images(self, tree: RunTree) -> frozenset[Boundary]:
        """The images that are not used."""
        return frozenset(
            (loop, index)
            for loop in tree.loops()
            for index, image in loop.images.items()
            if image.lsn in self.unusable
        )


def learnt(run: str) -> WentBack:
    """What earlier starts of this process have learnt of a run."""
    given = restart.message()
    return _went_back(given) if given.get("run") == run else WentBack(run)


def went_back(run: str, log: RunLog, tree: RunTree) -> WentBack:
    """The same, or what a process has learnt that could not start over by itself."""
    given = restart.message()
    if given.get("run") != run:
        newest = tree.sessions[-1]
        notes = (entry.record for entry in log.scan(newest, types=(Note,), session=newest))
        given = next((note.data for note in notes if isinstance(note, Note) and note.kind == WENT_BACK), {})
    return _went_back(given) if given else WentBack(run)


def _went_back(given: Mapping[str, Any]) -> WentBack:
    return WentBack(
        given["run"],
        tuple(given["unusable"]),
        tuple(given["reasons"]),
        blind=given["blind"],
        whole=given["whole"],
    )


def begins_anew(run: str) -> bool:
    """Whether an earlier start of this process has found that a run cannot be resumed."""
    given = restart.message()
    return given.get("run") == run and bool(given["anew"])


class ResumeGuide(Guide):
    """Leads a resume to its frontier, or back; ``journal`` is set before the script goes on."""

    journal: Journal

    def __init__(
        self,
        log: RunLog,
        tree: RunTree,
        plan: Plan,
        frontier: tuple[Node, int | Loop],
        before: WentBack,
        *,
        force: bool,
        anew: bool,
        passed: Sequence[str] = (),
        hidden: HiddenFiles,
    ) -> None:
        super().__init__(log, tree, plan, None, frontier=frontier)
        self.checks.alarm = self._differs
        self.checks.excuse(Outside(tree, lambda: present_texts(tree.sources), main_script()))
        self._before = before
        self._force = force
        self._anew = anew  # where it cannot be resumed, the training begins as a new run
        self._passed = passed  # runs that the program opened before, and that were not executed
        self._hidden = hidden  # until the first loop begins
        restored = last_restore(plan.root)
        self._restores = restored is not None
        self._begins = restored is None or restored == (tree.root.loops[0], 0)
        self._segment = isinstance(frontier[1], int)
        self._forced = self._set_up = ""
        self._refusal: FlorlogError | None = None

    def enter(self, loop: OpenLoop) -> None:
        """As of `Guide`; the first loop begins in the world as it is."""
        first = self.measured.setup is None
        self._hidden.show(anew=self._begins)
        try:
            super().enter(loop)
        except ChangedError as error:
            if first and (changed := changed_text(self.log, self.tree, own_directories(main_script()))):
                raise ChangedError(f"{error}; {changed}") from None
            raise

    # -- what fails ----------------------------------------------------------------------------------

    def fail(self, error: ImageError) -> None:
        """The image that was restored last cannot be used: go back."""
        super().fail(error)
        if self.image is not None and self.lost:
            what = not_entered(self.image, str(error))
            learnt = replace(self._before, blind=False)
            if obstacle := self._obstacle():
                self._end(ImageError(f"{what}, and {obstacle}: restart it and resume again"), learnt)
            report(what)
            self._start_over(learnt, what)
        if self.image is not None and self.navigating:
            self._go_back(cannot_be_restored(self.image, str(error)), str(error), from_there_on=False)

    def compared(self) -> None:
        """The whole state was compared at a boundary."""
        if self.checks.unlike:
            self._differs(self.checks.unlike)

    def leave(self, error: BaseException | None) -> None:
        """The script leaves the run: what it raises before the frontier may come from the image."""
        self._hidden.show()
        super().leave(error)
        if self._refusal is not None:
            if error is not self._refusal:  # the script has caught it, and made something else of it
                raise self._refusal from None
        elif not self.navigating:
            return
        elif isinstance(error, ImageError):
            self.fail(error)
        elif isinstance(error, Exception) and self.image is not None:
            text = f"{type(error).__name__}: {reason(error)}"
            own = not isinstance(error, ChangedError) and text in self._before.reasons  # from any image
            if not own and not restart.obstacle():
                self._go_back(f"from the image at {named(self.image)} on, the script raises {text}", text)
        elif isinstance(error, Exception) and self._passed:
            self._execute_earlier(f"the script raises {type(error).__name__}: {reason(error)}")
        elif error is None:
            report("the script ended before it came to where the recording ends: nothing was recorded")

    def _differs(self, text: str) -> None:
        """Something that was re-executed is not as it was recorded."""
        if not self.navigating and not self._segment:
            return
        if self._restores and self.image is None:
            self._set_up = self._set_up or text  # the image puts back what the set-up made
        elif self._force:
            self._forced = self._forced or text
        elif self.image is None:
            self._refuse(text)
        else:
            self._go_back(f"from the image at {named(self.image)} on, the run differs ({text})", _DIFFERS)

    def _go_back(self, what: str, why: str, *, from_there_on: bool = True) -> NoReturn:
        assert self.image is not None
        again = why in self._before.reasons
        dropped = without(
            self.tree,
            self._before.images(self.tree),
            self.image,
            without_gradients(self.log, self.tree) if why == READ else (),
            again=again,
            from_there_on=from_there_on,
        )
        lsns = tuple(sorted(loop.images[index].lsn for loop, index in dropped))
        learnt = replace(self._before, unusable=lsns, reasons=(*self._before.reasons, why))
        if obstacle := self._obstacle():
            then = f"{obstacle}: restart it and resume again, then {instead(self.tree, dropped)}"
            self._end(ImageError(f"{what}, and {then}"), learnt)
        report(f"{what}: {instead(self.tree, dropped)}")
        self._start_over(learnt, what)

    def _execute_earlier(self, text: str) -> None:
        """The run does not begin as it did: perhaps because of an earlier one that was passed over."""
        if not self._obstacle():
            what = f"after {len(self._passed)} earlier runs that were passed over the run differs ({text})"
            report(f"{what}: they are executed whole")
            self._start_over(WentBack(self.tree.run, whole=True), what)

    def _refuse(self, text: str) -> NoReturn:
        if self._passed:
            self._execute_earlier(text)
        what = (
            f"run {self.tree.run} cannot be resumed: executed again from its beginning it differs from the recording "
            f"({text})"
        )
        force = "`florlog resume --force` goes on with it nonetheless, and marks it"
        if self._anew and not self._obstacle():
            report(f"{what}: the training begins as a new run; {force}")
            self._start_over(replace(self._before, anew=True), what)
        self._end(DivergedError(f"{what}; {force}"))

    def _obstacle(self) -> str:
        if this_process.notebook.file:
            return "a kernel cannot be started over by itself"
        if rank()[1] > 1:
            return "one rank of several cannot be started over alone"
        return restart.obstacle()

    def _start_over(self, learnt: WentBack, what: str) -> NoReturn:
        self._leave_log(what, None)
        self.journal.close()
        self._hidden.discard()
        restart.start_over(asdict(learnt))

    def _end(self, error: FlorlogError, learnt: WentBack | None = None) -> NoReturn:
        self._refusal = error
        self._leave_log(str(error), learnt)
        raise error

    def _leave_log(self, what: str, learnt: WentBack | None) -> None:
        """Write why this session goes no further, and nothing after that."""
        data = {} if learnt is None else asdict(learnt)
        self.journal.append(Note(WENT_BACK, what, data), self.journal.session)
        self.journal.disown()

    # -- what is proven ------------------------------------------------------------------------------

    def lacks_gradients(self) -> None:
        """At the frontier, gradients are still those that the image has left out: go back to an earlier image."""
        assert self.image is not None
        why = "it has no gradients, and no step follows that computes them"
        self._go_back(cannot_be_restored(self.image, why), why, from_there_on=False)

    def prove(self) -> list[Note]:
        """The frontier is reached: all that was compared is equal, or the run was forced."""
        if self._refusal is not None:
            raise self._refusal
        start = "its beginning" if self.image is None else named(self.image)
        count = f"{self.redone} iteration{'' if self.redone == 1 else 's'}"
        times = ", what it reads from outside aside" if self.checks.excused else ""
        if self._set_up:
            report(f"before its first loop the run differs from the recording: {self._set_up}")
        if self._forced:
            report(f"resumed from {start} by force, though the run differs: {self._forced}")
            return [Note(FORCED, self._forced, {})]
        if self.redone and self.checks.evidence.compared:
            report(f"resumed from {start} after re-executing {count}, all equal to the recording{times}")
        else:
            report(
                f"resumed from {start} after re-executing {count}, of which nothing recorded could be compared"
            )
        return []
