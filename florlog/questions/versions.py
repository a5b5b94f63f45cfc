"""One question put to many runs, each replayed from the source that it was recorded from.

The statements that a script has and a run's source lacks are placed into that source
(`florlog.source.diff.placement`), in a
scratch directory (`florlog.programs.source_mirror`); the run is replayed from there, by a process of its own, so that
no run's settings or modules reach another one's.  Nothing of the user's is written: no file, branch or index.

Which statements: those that the newest run of the script lacks; where it has them all, to each run those that this run
lacks.  What else was added comes along only where a placed statement reads what it binds.

``python -m florlog.questions.versions`` is the process: an order on stdin as JSON, messages on stdout as
`florlog.redo.wire` has them, the answer as JSON text.
"""

from __future__ import annotations

import ast
import gc
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from florlog_recovery import RunTree
from florlog_wal import Store, WalError

from florlog.errors import FlorlogError, NoSuchRunError
from florlog.hindsight.compared_files import Compared, beside, compared
from florlog.program.recorded_sources import recorded_sources
from florlog.program.stores import tree_of
from florlog.programs.source_mirror import SourceMirror
from florlog.redo.wire import receive, send
from florlog.source.diff.placement import CannotPlaceError, Wanted, needed, place, statement_at
from florlog.source.names.syntax import SourceError


@dataclass(slots=True)
class Version:
    """A run, and what came of the question there: an answer as `replay` gives it in JSON, or why there is none."""

    run: str
    answer: dict[str, Any] = field(default_factory=dict)
    refused: str = ""


def runs_of(store: Store, script: str) -> list[str]:
    """The runs that were recorded from a script, oldest first."""
    found = [
        s.begin.run
        for s in store.sessions()
        if s.begin.kind != "replay" and os.path.realpath(s.begin.script) == os.path.realpath(script)
    ]
    return list(dict.fromkeys(found))


def replay_versions(store: Store, script: str, runs: Sequence[str], argv: Sequence[str]) -> list[Version]:
    """Answer a script's question for each run; ``argv``: the options of the replay.

    Raises `NoSuchRunError` where there is no such run, and `FlorlogError` where the script asks for nothing.
    """
    if not runs:
        raise NoSuchRunError(f"no run in {store.path} was recorded from {script}: `florlog runs` lists them")
    trees = {run: tree_of(store, run) for run in runs}
    newest = (runs_of(store, script) or list(runs))[-1]
    wanted = _asked_of(compared(store, trees.get(newest) or tree_of(store, newest), script))
    found = []
    for run, tree in trees.items():
        try:
            texts = _placed(store, tree, script, wanted)
        except (CannotPlaceError, SourceError) as reason:
            found.append(Version(run, refused=str(reason)))
            continue
        found.append(_replayed(store, tree, texts, argv) if texts else Version(run, refused=_NOTHING))
    if all(version.refused == _NOTHING for version in found):
        raise FlorlogError(f"no log statement of {script} is new to any of these runs: add one")
    return found


_NOTHING = "its source has every log statement of the script"


@dataclass(frozen=True)
class _File:
    """What is to be placed of a file, and its present text."""

    text: str
    wanted: tuple[Wanted, ...]


def _asked_of(files: Iterable[Compared]) -> dict[str, _File]:
    """The log statements that a run lacks and what else they need, by present file."""
    asked = {}
    for file in files:
        tree = ast.parse(file.new)
        logs = [added for added in file.diff.added if added.log_calls]
        if not logs:
            continue
        whole = {a.line: a for a in file.diff.added}
        main = {statement_at(tree, a.line) for a in logs}
        others = {statement_at(tree, a.line) for a in file.diff.added if not a.log_calls}
        chosen = main | needed(tree, main, others)
        wanted = []
        for node in sorted(chosen, key=lambda n: n.lineno):
            added = whole[node.lineno]
            known = file.diff.line_map.get(node.lineno) is not None
            names = tuple(n for call in added.log_calls for n in call.names) if known else ()
            wanted.append(Wanted(node.lineno, names))
        asked[file.present] = _File(file.new, tuple(wanted))
    return asked


def _placed(store: Store, tree: RunTree, script: str, asked: dict[str, _File]) -> dict[str, str]:
    """The texts of a run's files with the statements in them, by recorded path; none if it lacks none."""
    sources = recorded_sources(store, tree)
    if not asked:
        asked = _asked_of(compared(store, tree, script))
        if not asked:
            return {}
    present = {
        script if s.module == "__main__" else beside(s.path, tree.begin.script, script): s for s in sources
    }
    texts = {source.path: source.text for source in sources}
    for file, what in asked.items():
        if file not in present:
            raise CannotPlaceError(f"its source has no {Path(file).name}")
        source = present[file]
        old = ast.parse(source.text)
        name = Path(source.path).name
        texts[source.path] = place(old, source.text, ast.parse(what.text), what.wanted, name).text
    return texts


def _replayed(store: Store, tree: RunTree, texts: dict[str, str], argv: Sequence[str]) -> Version:
    with SourceMirror(tree.begin.script, texts) as mirror:
        order = {
            "argv": ["replay", mirror.script, "--run", tree.run, "--store", str(store.path), *argv],
            "shown": {mirror.path(recorded): recorded for recorded in texts},
        }
        done = subprocess.run(
            [sys.executable, "-m", "florlog.questions.versions"],
            input=json.dumps(order).encode(),
            stdout=subprocess.PIPE,
            check=False,
        )
    match receive(io.BytesIO(done.stdout)):
        case ["done", str() as text]:
            return Version(tree.run, answer=json.loads(text))
        case ["error", str() as text]:
            return Version(tree.run, refused=text)
    return Version(tree.run, refused=f"its replay ended with status {done.returncode}")


def main() -> None:
    """Carry out the order."""
    gc.freeze()  # as `florlog.__main__` does
    order = json.load(sys.stdin)
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    from florlog.commands import parser
    from florlog.commands.replay import answered

    try:
        found = answered(parser("replay").parse_args(order["argv"]), order["shown"])
        send(stream, ["done", json.dumps(found)])
    except (FlorlogError, WalError) as error:
        send(stream, ["error", str(error)])


if __name__ == "__main__":
    main()
