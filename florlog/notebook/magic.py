"""``%%florlog``: a cell is recorded hands-free, or asked.

    %%florlog [NAME] [--store DIR] [--overhead X] [--resume]
    %%florlog replay [--run ID[,ID...]] [--where CONDITION] [--first N] [--last N] [--workers N] [--force] [--store DIR]
    %%florlog explain (the same)

To ask, the user adds statements to the recorded cell and writes ``replay`` into its first line.  The cell takes the
place of the recorded one in the recorded program, in a temporary file, and a process of its own replays that.  Which
run: the newest that was recorded from the same cell, else the newest of the notebook.  Of several runs each is replayed
from its own cells (`florlog.questions.versions`).

An earlier cell that was executed again since, with nothing but statements added, brings these along (front ends that
name their cells, as Jupyter's do).  One that was changed otherwise is taken as it was recorded, with a line that says
so.
"""

from __future__ import annotations

import argparse
import functools
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from florlog_recovery import RunTree
from florlog_wal import RunLog, Store, WalError
from IPython.core.error import UsageError

from florlog.errors import FlorlogError
from florlog.hindsight.compared_files import read_in
from florlog.hindsight.plan_text import plan_text
from florlog.hindsight.plan_view import PlanView, view_of
from florlog.program import units
from florlog.program.cell_history import ASKING, History, Understood, understood
from florlog.program.environment import CELLS, is_hands_free
from florlog.program.recorded_sources import recorded_sources
from florlog.program.stores import listed_runs, log_of, open_store, store_path, tree_of
from florlog.program.terminal import report
from florlog.programs.notebook_cells import record_cell, refuse_unrepeatable
from florlog.programs.permission import Trust, permit
from florlog.questions.answer_json import answer_json
from florlog.questions.versions import replay_versions, report_versions
from florlog.redo.replaying import Question, planned, replay_elsewhere
from florlog.source.diff.source_diff import compare
from florlog.source.edit.cell_text import parts, with_recorded
from florlog.source.edit.rewrite import statements


def load(shell: Any) -> None:
    """Register ``%%florlog`` with a shell, and follow what it executes."""
    history = getattr(shell, "_florlog_history", None)
    if history is None:
        history = shell._florlog_history = History(shell)
        shell.events.register("pre_run_cell", history.begins)
        shell.events.register("post_run_cell", history.ends)
    magic = Magic(shell, history)
    shell.register_magic_function(magic.florlog, "cell", "florlog")


class Magic:
    """The cell magic of one shell."""

    def __init__(self, shell: Any, history: History) -> None:
        self.shell = shell
        self.history = history

    def florlog(self, line: str, cell: str) -> None:
        """Record a cell hands-free; ``%%florlog replay`` and ``%%florlog explain`` ask a recorded one."""
        __tracebackhide__ = True
        words = shlex.split(line)
        try:
            found = self._understood(cell)
            if words[:1] and words[0] in ASKING:
                self._ask(words[0], _asking(words[0]).parse_args(words[1:]), found)
                return
            options = _recording().parse_args(words)
            program = self.history.program(found)
        except (FlorlogError, WalError) as error:
            self._void()
            raise UsageError(f"florlog: {error}") from None
        except UsageError:
            self._void()
            raise
        try:
            record_cell(
                program,
                self.shell.user_ns,
                name=options.name,
                store=store_path(options.store),
                overhead=options.overhead,
                resume="auto" if options.resume else "never",
            )
        except FlorlogError as error:
            if _passed(error.__traceback__, program.file):
                raise  # by what the cell does
            self._void()
            raise UsageError(f"florlog: {error}") from None

    def _understood(self, cell: str) -> Understood:
        try:
            found = understood(self.shell.transform_cell, cell)
        except SyntaxError as error:
            raise FlorlogError(f"the cell is no Python: line {error.lineno}: {error.msg}") from None
        if found is None or found.obstacle:
            why = found.obstacle if found else "holds nothing that runs in the notebook"
            raise FlorlogError(f"the cell {why}: move that into a cell of its own")
        return found

    def _void(self) -> None:
        """Nothing of the running cell is executed: it is no part of later programs."""
        if self.history.running is not None:
            self.history.running.void = True

    # -- asking ------------------------------------------------------------------------------------

    def _ask(self, command: str, options: argparse.Namespace, found: Understood) -> None:
        path = store_path(options.store)
        with open_store(path) as store:
            runs = _in_order(store, (options.run or "").split(","))
            log = self._run(store, runs[-1] if runs else None)
            tree = tree_of(log)
            refuse_unrepeatable(tree.begin)
            facts = tree.begin.environment[CELLS]
            recorded = next(s.text for s in recorded_sources(log, tree) if s.module == "__main__")
            trust = Trust(options.trust)
            if command == "replay" and len(runs) <= 1:
                permit(log, tree, trust)  # the recorded cells before this one are executed
        report(f"asking run {', '.join(runs) or tree.run}")
        hands_free = is_hands_free(tree.begin.environment)
        text = with_recorded(self._revised(recorded, facts["ids"], hands_free=hands_free), found.text)
        with tempfile.TemporaryDirectory(prefix="florlog-cells-") as directory:
            script = Path(directory).resolve() / "cells.py"
            script.write_text(text, encoding="utf-8")
            question = Question(
                str(path), tree.run, str(script), options.where, options.first, options.last, options.force,
                getattr(options, "workers", None) or 1, {str(script): tree.begin.script},
            )  # fmt: skip
            if command == "explain":
                if len(runs) > 1:
                    raise FlorlogError("explain shows the plan of one run: name one")
                self._explain(question, tree)
            elif len(runs) > 1:
                self._replay_each(question, runs, trust)
            else:
                self._replay(question)

    def _run(self, store: Store, named: str | None) -> RunLog:
        """The log of the run that is asked."""
        if named is not None:
            log = log_of(store, named)
            begin = log.sessions()[0].begin
            if CELLS not in begin.environment:
                raise FlorlogError(
                    f"run {named} was recorded from {begin.script or 'no script'}, not from a cell: "
                    "ask it with `florlog replay`"
                )
            return log
        running = self.history.running
        cell = running.identity if running is not None else ""
        file = self.history.file
        runs = [listed for listed in listed_runs(store) if listed.script == file and listed.cells is not None]
        if not runs:
            raise FlorlogError(f"no run in {store.path} was recorded from a cell of this notebook")
        same = [listed for listed in runs if cell and listed.cells and listed.cells[-1] == cell]
        return log_of(store, (same or runs)[-1].run)

    def _revised(self, recorded: str, ids: Sequence[str], *, hands_free: bool) -> str:
        """The recorded program with the statements that were added to its earlier cells since."""
        lines = recorded.split("\n")
        setup = parts(recorded)[:-1]
        last = {identity: part for identity, part in zip(ids, setup, strict=False) if identity}
        texts = {part: "\n".join(lines[part.lines.start - 1 : part.lines.stop - 1]) for part in setup}
        for identity, part in sorted(last.items(), key=lambda item: -item[1].lines.start):
            now = self._latest(identity)
            known = [texts[p] for i, p in zip(ids, setup, strict=False) if i == identity]
            if now is None or now.rstrip() in (text.rstrip() for text in known):
                continue
            with read_in(statements if hands_free else None):
                diff = compare(texts[part], now, filename=f"cell In [{part.number}]")
            if diff.changed:
                report(f"cell In [{part.number}] was changed since: the replay has it as it was recorded")
                continue
            lines[part.lines.start - 1 : part.lines.stop - 1] = now.rstrip("\n").split("\n")
        return "\n".join(lines)

    def _latest(self, identity: str) -> str | None:
        for ran in reversed(self.history.cells):
            if ran.identity == identity and not (ran.running or ran.void or ran.raised):
                found = understood(self.shell.transform_cell, ran.raw)
                return None if found is None or found.obstacle else found.text
        return None

    def _replay(self, question: Question) -> None:
        replayed = replay_elsewhere(question, _show_plan, cwd=self.shell.starting_dir, heard=sys.stderr.write)
        answer = answer_json(replayed)
        self._display(answer["values"])
        plan = replayed.view
        print(
            f"{len(answer['values'])} values from {plan['iterations_redone']} of {plan['iterations_total']} "
            f"iterations, stored next to run {replayed.run}"
        )
        for difference in replayed.answer.differences[:1]:
            report(f"the replay differs from the recording: {difference}")

    def _replay_each(self, question: Question, runs: Sequence[str], trust: Trust) -> None:
        """Replay several runs, each from its own cells with the added statements placed into them."""
        with open_store(Path(question.store)) as store:
            found = replay_versions(
                store, runs, question, trust, cwd=self.shell.starting_dir, heard=sys.stderr.write
            )
        report_versions(found)
        answers = [answer_json(version.replayed) for version in found if version.replayed is not None]
        if not answers:
            raise FlorlogError("there are no values")
        self._display(
            [
                value | {"path": {"run": answer["run"]} | value["path"]}
                for answer in answers
                for value in answer["values"]
            ]
        )

    def _explain(self, question: Question, tree: RunTree) -> None:
        with open_store(Path(question.store)) as store:
            request, plan = planned(log_of(store, question.run), tree, question)
        for added in request.added:
            print(f"added: {added}")
        for note in request.remarks.images:
            print(f"note: {note}")
        print(plan_text(view_of(plan, request)))

    @staticmethod
    def _display(values: Sequence[dict[str, Any]]) -> None:
        from IPython.display import display

        for table in _tables(values):
            display(table)


def _show_plan(view: PlanView) -> None:
    print(plan_text(view), file=sys.stderr)


def _passed(trace: TracebackType | None, file: str) -> bool:
    """Whether a traceback leads through a file."""
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            return True
        trace = trace.tb_next
    return False


def _in_order(store: Store, named: Sequence[str]) -> list[str]:
    """The named runs, oldest first; raises `NoSuchRunError`."""
    began = {run: log_of(store, run).sessions()[0].begin.started for run in named if run}
    return sorted(began, key=began.__getitem__)


def _tables(values: Sequence[dict[str, Any]]) -> Iterator[Any]:
    import pandas as pd

    for name in dict.fromkeys(value["name"] for value in values):
        named = [value for value in values if value["name"] == name]
        loops = dict.fromkeys(loop for value in named for loop in value["path"])
        yield pd.DataFrame(
            [
                {loop: value["path"].get(loop, "") for loop in loops}
                | {name: value["value"], "trust": value["trust"]}
                for value in named
            ]
        )


class _MagicParser(argparse.ArgumentParser):
    """Wrong use of a magic is one line, and never the end of the kernel."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise UsageError(message or self.prog)


def _count(what: str, text: str) -> int:
    try:
        return units.count(text, what)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _recording() -> argparse.ArgumentParser:
    parser = _MagicParser(prog="%%florlog", add_help=False)
    parser.add_argument("name", nargs="?", default="notebook")
    parser.add_argument("--store")
    parser.add_argument("--overhead", type=float, default=0.02)
    parser.add_argument("--resume", action="store_true")
    return parser


def _asking(command: str) -> argparse.ArgumentParser:
    parser = _MagicParser(prog=f"%%florlog {command}", add_help=False)
    for text in ("run", "where", "store"):
        parser.add_argument(f"--{text}")
    for number, what in (("first", "iterations"), ("last", "iterations"), ("workers", "processes")):
        if number != "workers" or command == "replay":
            parser.add_argument(f"--{number}", type=functools.partial(_count, what))
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--trust", action="append", default=[])
    return parser
