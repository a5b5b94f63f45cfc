"""What florlog found in an unmodified program, in five lines on stderr, and what follows from what it did not find.

They come when the first loop begins.  Where source analysis has found no loop they come before the script starts, since
nothing would come later; where none of the loops has begun for `MAX_SILENT_SECONDS`, then.
"""

from __future__ import annotations

import ast
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from florlog.bridges.plain_loops import Runtime
from florlog.program.terminal import report
from florlog.source.carry.changeset import loop_effects
from florlog.source.edit.cell_text import executed
from florlog.source.edit.loop_choice import Choice
from florlog.source.names.telling import Tellings

MAX_LISTED_ITEMS = 8
MAX_SILENT_SECONDS = 20.0
"""After so long without a loop, that is said."""
_LOOPS_OF_THEIR_OWN = frozenset({
    "catalyst", "composer", "detectron2", "fastai", "ignite", "keras", "lightgbm", "lightning", "mmengine",
    "pytorch_lightning", "sentence_transformers", "skorch", "stable_baselines3", "tensorflow", "transformers", "trl",
    "ultralytics", "xgboost",
})  # fmt: skip
"""Libraries that train in loops of their own."""


class Announcement:
    """The lines for one program: its recorded loops, and the ``texts`` of its files; ``store`` is where it records.

    ``hooked``: frameworks whose loops are recorded by their hooks, with their versions.
    """

    def __init__(
        self, choice: Choice, store: Path, texts: Mapping[str, str], hooked: Mapping[str, str]
    ) -> None:
        self._choice, self._store, self._texts = choice, store, texts
        self._hooked = [f"those of {name} {version}, by its hooks" for name, version in hooked.items()]
        self._timer: threading.Timer | None = None
        self._said = False

    def opened(self, runtime: Runtime) -> None:
        """The run is open, and the script is about to start."""
        if not runtime.run.id:  # not recorded, as on all ranks but the first
            return
        if not (self._choice.loops or self._hooked):
            self._print(runtime)
            return
        self._timer = threading.Timer(MAX_SILENT_SECONDS, self._report_silence)
        self._timer.daemon = True
        self._timer.start()

    def begun(self, runtime: Runtime) -> None:
        """The first loop begins, or the script has ended without any."""
        if self._timer is not None:
            self._timer.cancel()
        if runtime.run.id and not self._said:
            self._print(runtime)
            if not runtime.entered:
                report(f"none of these loops was executed: the run is one transaction. {self._advice()}")

    def _report_silence(self) -> None:
        report(
            f"no loop has begun for {MAX_SILENT_SECONDS:.0f} s, of those that were found: {self._loops()}. Until one "
            f"does, a crash starts over. {self._advice()}"
        )

    def _print(self, runtime: Runtime) -> None:
        self._said = True
        statements = sum(
            1 for text in self._texts.values() for _ in Tellings(ast.parse(executed(text))).calls()
        )
        verb = "resuming" if runtime.run.resumed else "recording"
        report(f"{verb} run {runtime.run.id} in {self._store}")
        report(f"loops: {self._loops() or self._no_loops()}")
        if self._choice.loops:
            report(
                f"tracked: {_listed(list(runtime.tracked)) or 'nothing by name'}; and what the loops carry"
            )
        report(f"statements: {statements} that print or log values, in {len(self._texts)} files")
        if self._choice.loops or self._hooked:
            report(f"not understood: {_listed(list(dict.fromkeys(self._unknown()))) or 'nothing'}")
        else:
            report(f"not understood: where this program trains. {self._advice()}")

    def _loops(self) -> str:
        return _listed(
            [
                f"{name} ({Path(file).name}:{line})"
                for file, lines in self._choice.loops.items()
                for line, name in sorted(lines.items())
            ]
            + self._hooked
        )

    def _no_loops(self) -> str:
        files = _listed([Path(file).name for file in self._texts])
        passed = f" ({_listed(list(self._choice.not_taken))})" if self._choice.not_taken else ""
        return (
            f"none found in {files}{passed}. So there are no images: a crash starts over, and a question executes all "
            "of the script again"
        )

    def _unknown(self) -> Iterator[str]:
        for why in self._choice.not_taken:
            yield f"{why}, so its iterations are not recorded"
        for loop in loop_effects(
            {file: self._texts[file] for file in self._choice.loops if file in self._texts}
        ):
            for effect in loop.unknown:
                yield f"{Path(loop.file).name}:{effect.line} what `{effect.text}` changes"

    def _advice(self) -> str:
        """What the user can do about a program whose training was not found."""
        libraries = sorted(set(self._imported()) & _LOOPS_OF_THEIR_OWN)
        if libraries:
            return (
                f"If {_listed(libraries)} runs the training loop, write `with florlog.iteration('step', NUMBER):` "
                "around the body of the function that it calls for each step"
            )
        return (
            "A loop is found if its body calls backward, step, fit or the like, or prints values, in a file that "
            "the script imports by name; write `for x in florlog.loop('step', ITEMS):` where yours is"
        )

    def _imported(self) -> Iterator[str]:
        """The top-level modules that the program's files import."""
        for text in self._texts.values():
            for node in ast.walk(ast.parse(executed(text))):
                if isinstance(node, ast.Import):
                    yield from (alias.name.partition(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    yield (node.module or "").partition(".")[0]


def _listed(items: list[str]) -> str:
    more = f" and {len(items) - MAX_LISTED_ITEMS} more" if len(items) > MAX_LISTED_ITEMS else ""
    return ", ".join(items[:MAX_LISTED_ITEMS]) + more
