"""Programs with state in random places: resumed equal or refused, replayed equal or not PROVEN.

A `Program` puts one kind of state (`tests.state.heap.kinds`) into a place of a small training: names of the script,
variables of a function, or another module.  The state is only observed, or it acts on what is trained.  Images are
dense or rare, and the process kills itself in some step.  `outcome` records, resumes and replays it in real processes
and compares with the run that nobody interrupted.

``python -m tests.end_to_end.random_programs --programs 2000`` (``make programs``) draws them and counts outcomes.
"""

from __future__ import annotations

import argparse
import ast
import random
import shutil
import sys
import tempfile
import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from florlog_wal import encode_value
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import florlog
from florlog.following.trust import DIVERGED, PROVEN
from florlog.reading.columns import RECORDED
from florlog.state.logged_values import plain
from tests.state.heap.kinds import KINDS, PRELUDE, Kind

from .harness import Nursery

EPOCHS, STEPS = 3, 2
PLACES = ("script", "function", "module")
_HEAD = (
    PRELUDE
    + """
import os, signal, zlib
import florlog


def flor_number(seen):
    return zlib.crc32(repr(seen).encode()) / 2 ** 32


def flor_killed(i):
    if i == {kill} and os.path.exists("kill"):
        os.remove("kill")
        os.kill(os.getpid(), signal.SIGKILL)
"""
)
_TRAINING = """
torch.manual_seed(1)
flor_w = torch.zeros(3)
{opening}
    for flor_epoch in {epochs}:
        for flor_k in {steps}:
            i = flor_epoch * {count} + flor_k
{step}
            flor_v = flor_number({seen})
            flor_w += torch.randn(3) * {factor}
            {mark}{probe}
            {loss}
            flor_killed(i)
"""
_WITH_API = {
    "opening": "with florlog.run('t', overhead={overhead}) as flor_run:\n    flor_run.track(w=flor_w)",
    "epochs": f"flor_run.loop('epoch', range({EPOCHS}))",
    "steps": f"flor_run.loop('step', range({STEPS}))",
    "probe": "flor_run.log(probe=flor_v)",
    "loss": "flor_run.log(loss=flor_w.sum().item())",
}
_PLAIN = {
    "opening": "if True:",
    "epochs": f"range({EPOCHS})",
    "steps": f"range({STEPS})",
    "probe": "print('probe', flor_v)",
    "loss": "print('loss', flor_w.sum().item())",
}
_ONLY_GLOBAL = ("globals()", "vars(C)")


@dataclass(frozen=True)
class Program:
    """One small training.  ``kill``: the step in which it kills itself; ``acts``: whether the state acts on it."""

    kind: Kind
    place: str = "script"
    acts: bool = False
    overhead: str = "float('inf')"
    kill: int = 4
    hands_free: bool = False

    def command(self) -> list[str]:
        """What records it, before the script's name."""
        return ["florlog", "record"] if self.hands_free else []

    def write(self, folder: Path, *, asked: bool) -> Path:
        """Its files; ``asked``: with the log statement that is added afterwards."""
        setup, step, seen = self.kind.setup, self.kind.step, self.kind.seen
        if self.place == "module":
            bound = sorted(_bound(f"{setup}\n{step}"))
            body = textwrap.indent(f"global {', '.join(bound)}\n{step}" if bound else step, "    ")
            part = f"{PRELUDE}\n{setup}\n\n\ndef step(i):\n{body}\n\n\ndef seen(i):\n    return {seen}\n"
            (folder / "part.py").write_text(part)
            setup, step, seen = "import part", "part.step(i)", "part.seen(i)"
        parts = _PLAIN if self.hands_free else _WITH_API
        training = _TRAINING.format(
            **parts | {"opening": parts["opening"].format(overhead=self.overhead)},
            count=STEPS,
            step=textwrap.indent(step, " " * 12),
            factor="flor_v" if self.acts else "1.0",
            seen=seen,
            mark="" if asked else "# ",
        )
        text = f"{setup}\n{training}"
        if self.place == "function":
            text = f"def main():\n{textwrap.indent(text, '    ')}\n\nmain()\n"
        script = folder / "train.py"
        script.write_text(_HEAD.replace("{kill}", str(self.kill)) + "\n" + text)
        return script


@dataclass(frozen=True)
class Outcome:
    """How a program came out, in a word for each question, and what was said about it."""

    resumed: str  # equal, refused, WRONG
    replayed: str  # PROVEN, not proven, refused, WRONG, "DIVERGED though equal"
    said: str

    @property
    def wrong(self) -> bool:
        """Whether a promise is broken."""
        return "WRONG" in (self.resumed, self.replayed)


UNFIT = Outcome("unfit", "unfit", "the program fails by itself, as an iterator that has no more items")


def fits(kind: Kind, place: str) -> bool:
    """Whether a kind of state can be in a place."""
    if place == "function":
        return not any(word in kind.setup + kind.step + kind.seen for word in _ONLY_GLOBAL)
    return True


def outcome(nursery: Nursery, folder: Path, program: Program) -> Outcome:
    """Record, kill, resume and ask a program in real processes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    output = nursery.directory / "output.txt"
    truth, store = folder / "truth", folder / "store"
    if _code(nursery, truth, *program.command(), program.write(folder, asked=True)):
        return UNFIT
    expected = _values(truth, recorded=True)
    script = program.write(folder, asked=False)
    (folder / "kill").touch()
    killed, _ = nursery.run(store, *program.command(), script, code=None)
    said = [output.read_text()]
    if (folder / "kill").exists():
        raise AssertionError(f"not killed ({killed}): {said[0]}\n{script.read_text()}")
    failed = _code(nursery, store, "florlog", "resume", script)
    said.append(output.read_text())
    others = {place: value for place, value in expected.items() if place[0] != "probe"}
    if failed:
        resumed = "refused" if failed == 1 and "Traceback" not in said[-1] else "WRONG"
    else:
        resumed = "equal" if _values(store, recorded=True) == others else "WRONG"
    if resumed != "equal":  # the question is asked of a whole run
        shutil.rmtree(store)
        nursery.run(store, *program.command(), script)
    script = program.write(folder, asked=True)
    failed = _code(nursery, store, "florlog", "replay", script)
    said.append(output.read_text())
    return Outcome(resumed, _replayed(failed, said[-1], store, expected), "\n".join(said))


def _code(nursery: Nursery, store: Path, *argv: str | Path) -> int:
    try:
        nursery.run(store, *argv)
    except AssertionError as error:
        return int(str(error).partition("exited with ")[2].partition(":")[0])
    return 0


def _replayed(failed: int, said: str, store: Path, expected: dict[Any, bytes]) -> str:
    if failed and "Traceback" in said:
        return "WRONG"
    probes = {place for place in expected if place[0] == "probe"}
    found, worst = set(), PROVEN
    with florlog.open(store) as log:
        for value in log.run().logged():
            place = (value.name, value.path)
            if value.trust == RECORDED or place not in probes:
                continue
            found.add(place)
            equal = encode_value(plain(value.value)) == expected[place]
            if value.trust == PROVEN and not equal:
                return "WRONG"
            if value.trust == DIVERGED and equal and worst == PROVEN:
                worst = "DIVERGED though equal"
            elif value.trust != PROVEN and worst == PROVEN:
                worst = "not proven"
    if failed and not found:
        return "refused"
    return worst if found == probes else "incomplete"


def _values(store: Path, *, recorded: bool) -> dict[Any, bytes]:
    with florlog.open(store) as log:
        return {
            (value.name, value.path): encode_value(plain(value.value))
            for value in log.run().logged()
            if (value.trust == RECORDED) == recorded
        }


def _bound(code: str) -> set[str]:
    """The names that code binds, those inside of functions and classes left out."""
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(code)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        if not isinstance(node, ast.Lambda | ast.ListComp | ast.GeneratorExp | ast.DictComp | ast.SetComp):
            pending.extend(ast.iter_child_nodes(node))
    return found


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Programs of all kinds of state in all places."""
    kind = draw(st.sampled_from(KINDS))
    hands_free = draw(st.booleans())
    return Program(
        kind,
        draw(st.sampled_from([place for place in PLACES if fits(kind, place)])),
        acts=draw(st.booleans()),
        overhead="0.02" if hands_free else draw(st.sampled_from(["float('inf')", "0.5", "0.02"])),
        kill=draw(st.integers(0, EPOCHS * STEPS - 1)),
        hands_free=hands_free,
    )


class Tally:
    """Tries programs, prints those that break a promise, and counts how they come out."""

    def __init__(self, directory: Path, *, verbose: bool) -> None:
        self.counts = Counter[tuple[str, str]]()
        self._directory = directory
        self._verbose = verbose
        self._nursery = Nursery(directory)

    def attempt(self, program: Program) -> None:
        """Try one program."""
        try:
            found = outcome(self._nursery, self._directory / "program", program)
        except AssertionError as error:
            found = Outcome("error", "error", str(error))
        self.counts[found.resumed, found.replayed] += 1
        if found.wrong or self._verbose:
            print(f"{program}: resumed {found.resumed}, replayed {found.replayed}")
            print(textwrap.indent(found.said, "    "), flush=True)

    def close(self) -> None:
        """End the processes."""
        self._nursery.close()


def main() -> int:
    """Try programs and count."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--programs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument(
        "--every", action="store_true", help="every kind once in the script, observed and acting"
    )
    parser.add_argument("--only", default="", help="of those, kinds with this text in their name")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        tally = Tally(Path(directory), verbose=options.verbose)
        if options.every or options.only:
            for kind in KINDS:
                if options.only in kind.name:
                    for acts in (False, True):
                        tally.attempt(Program(kind, acts=acts))
        else:
            drawn = settings(
                max_examples=options.programs,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )(seed(options.seed)(given(programs())(tally.attempt)))
            drawn()
        tally.close()
    for (resumed, replayed), count in tally.counts.most_common():
        print(f"{count:6} resumed {resumed}, replayed {replayed}")
    return any({"WRONG", "error"} & {*key} for key in tally.counts)


if __name__ == "__main__":
    sys.exit(main())
