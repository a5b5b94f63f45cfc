"""The command ``florlog``.

Data goes to stdout, progress and errors to stderr; an error is one line.  Exit codes: 0 done, 1 the log or
a replay disagrees with the recording, 2 wrong use.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from florlog_recovery import Plan, RunTree
from florlog_wal import Entry, Note, Store, WalError, compact, gc, verify

from . import _session
from ._hindsight import Answer, Question, answer, ask, plan_for
from ._inspect import inspect_records
from ._journal import report
from ._plan_view import PlanView, plan_text, plan_view
from ._reader import RunView
from ._render import jsonable
from ._session import Resume, newest_run, open_store, sessions_of, store_path, tree_of
from .errors import FlorlogError, NoSuchRunError
from .source.execution import run_as_main


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parser = _parser()
    options, rest = parser.parse_known_args(argv)
    if rest and options.command != "resume":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest[1:] if rest[:1] == ["--"] else rest
    try:
        return int(options.function(options))
    except (FlorlogError, WalError, FileExistsError) as error:
        print(f"florlog: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="florlog", description="Record a training always, ask it afterwards."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, function: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            "--store", metavar="DIR", help="the store (default $FLORLOG_STORE, else ./.florlog)"
        )
        command.set_defaults(function=function)
        return command

    def formats(command: argparse.ArgumentParser) -> None:
        command.add_argument("--format", choices=("text", "json"), default="text")

    for name, function, text in (
        (
            "replay",
            _replay,
            "Re-execute the minimal redo set that answers the log statements added to SCRIPT.",
        ),
        ("explain", _explain, "Show the plan of a replay and its predicted cost; execute nothing."),
    ):
        command = add(name, function, text)
        command.add_argument("script", metavar="SCRIPT", help="the script, with log statements added")
        command.add_argument("--run", metavar="ID", help="the run (default: the newest recorded from SCRIPT)")
        command.add_argument(
            "--where", metavar="CONDITION", help="iterations, such as 'epoch >= 5 and step %% 100 == 0'"
        )
        formats(command)

    command = add("resume", _resume, "Continue a killed run of SCRIPT where it stopped, bit-exactly.")
    command.add_argument("script", metavar="SCRIPT")
    command.add_argument("--run", metavar="ID", help="the run (default: the newest recorded from SCRIPT)")

    command = add("inspect", _inspect, "Show the records of a run, one a line.")
    command.add_argument("run", metavar="RUN", nargs="?", help="a run id (default: the newest)")
    formats(command)

    formats(add("runs", _runs, "List the runs of a store, oldest first."))
    formats(add("verify", _verify, "Check every record and page of a store."))

    command = add("gc", _gc, "Remove what the given policy does not keep, and every page that nothing needs.")
    command.add_argument("--keep-last", metavar="N", type=_count, help="keep the newest N runs")
    command.add_argument(
        "--budget", metavar="BYTES", type=_size, help="what pages may take, such as 500M or 2G"
    )
    command.add_argument(
        "--max-redo", metavar="SECONDS", type=float, help="thin images as far as redo between two stays below"
    )
    command.add_argument("--compact", metavar="DIR", help="then copy the store to DIR, without free space")
    command.add_argument("--dry-run", action="store_true", help="only tell what would be removed")
    formats(command)
    return parser


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least one run stays")
    return number


def _size(text: str) -> int:
    units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in units else (text, "")
    try:
        return int(float(number) * units.get(unit, 1))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size: give bytes, or a number with K, M, G or T"
        ) from None


def _tree(store: Store, options: argparse.Namespace) -> RunTree:
    """The run that a command's SCRIPT and --run mean."""
    script = Path(options.script).absolute()
    if not script.is_file():
        raise FlorlogError(f"there is no script {script}")
    if options.run is not None:
        sessions_of(store, options.run)
        return tree_of(store, options.run)
    run = newest_run(store, lambda begin: os.path.realpath(begin.script) == os.path.realpath(script))
    if run is None:
        raise NoSuchRunError(
            f"no run in {store.path} was recorded from {script}: choose one with --run (`florlog runs` lists them)"
        )
    return tree_of(store, run)


def _planned(store: Store, options: argparse.Namespace) -> tuple[Question, Plan, PlanView]:
    question = ask(store, _tree(store, options), str(Path(options.script).absolute()), options.where)
    plan = plan_for(question)
    return question, plan, plan_view(plan, question.request)


def _explain(options: argparse.Namespace) -> int:
    with open_store(store_path(options.store), "r") as store:
        question, _, view = _planned(store, options)
    if options.format == "json":
        print(json.dumps(view))
    else:
        for added in question.added:
            print(f"added: {added}")
        for note in question.notes:
            print(f"note: {note}")
        print(plan_text(view))
    return 0


def _replay(options: argparse.Namespace) -> int:
    with open_store(store_path(options.store), "r") as store:
        question, plan, view = _planned(store, options)
        if options.format == "text":
            print(plan_text(view), file=sys.stderr)
        progress = _progress(view["iterations_redone"])
        found = answer(store, question, plan, progress=progress)
        if progress is not None:
            print(file=sys.stderr)
    if options.format == "json":
        print(json.dumps(_answer_json(found, view)))
    else:
        _print_answer(found, question, view)
    if not found.differences:
        return 0
    report(f"the replay differs from the recording: {found.differences[0]}")
    return 1


def _progress(total: int) -> Callable[[int], None] | None:
    if not sys.stderr.isatty() or not total:
        return None
    started = shown = time.perf_counter()

    def show(done: int) -> None:
        nonlocal shown
        now = time.perf_counter()
        if now - shown > 0.1 or done == total:
            shown = now
            left = (now - started) / done * (total - done)
            print(
                f"\rreplaying: {done} of {total} iterations, {left:.0f} s left ",
                end="",
                file=sys.stderr,
                flush=True,
            )

    return show


def _answer_json(found: Answer, view: PlanView) -> dict[str, Any]:
    values = [
        {
            "name": value.name,
            "statement": {"file": value.file, "line": value.line, "qualname": value.qualname},
            "path": dict(value.path),
            "value": jsonable(value.value),
            "trust": value.trust,
        }
        for value in found.values
    ]
    return {"run": view["run"], "values": values, "plan": view}


def _print_answer(found: Answer, question: Question, view: PlanView) -> None:
    import pandas as pd  # here and below: only tables need it, and it takes long to import

    if not found.values:
        print("the added statements were not reached: no values")
    names = list(dict.fromkeys(value.name for value in found.values))
    for name in names:
        values = [value for value in found.values if value.name == name]
        table = pd.DataFrame(
            {
                **{
                    loop: [dict(v.path).get(loop, "") for v in values]
                    for loop in dict.fromkeys(loop for v in values for loop, _ in v.path)
                },
                name: [_cell(v.value) for v in values],
                "trust": [v.trust for v in values],
            }
        )
        print(table.to_string(index=False, max_rows=20))
        print()
    counts: dict[str, int] = {}
    for value in found.values:
        counts[value.trust] = counts.get(value.trust, 0) + 1
    listed = ", ".join(f"{count} {trust}" for trust, count in counts.items()) or "none"
    print(
        f"{len(found.values)} values ({listed}) from {view['iterations_redone']} of "
        f"{view['iterations_total']} iterations in {found.seconds:.2f} s, set-up included; "
        f"the recorded loops took {view['full_rerun_seconds']:.2f} s"
    )
    if found.stored:
        print(
            f"stored beside run {question.tree.run}: florlog.open(...).values({names[0]!r})" if names else ""
        )


def _cell(value: Any) -> Any:
    held = jsonable(value)
    text = json.dumps(held)
    return held if isinstance(held, int | float) else text if len(text) <= 60 else text[:57] + "..."


def _resume(options: argparse.Namespace) -> int:
    path = store_path(options.store)
    with open_store(path, "r") as store:
        tree = _tree(store, options)
        if tree.status == "complete":
            raise FlorlogError(f"run {tree.run} is complete: there is nothing to resume")
        if tree.status == "running":
            raise FlorlogError(f"run {tree.run} is still being recorded: wait for it, or stop it first")
    os.environ["FLORLOG_STORE"] = str(path)
    _session.command = command = Resume(tree.run)
    report(f"resuming run {tree.run}")
    try:
        run_as_main(options.script, options.rest or tree.begin.argv)
    finally:
        _session.command = None
    if not command.taken:
        raise FlorlogError(
            f"{options.script} opened no run named {tree.begin.name!r}: is it the script of this run?"
        )
    return 0


def _inspect(options: argparse.Namespace) -> int:
    with open_store(store_path(options.store), "r") as store:
        run = options.run or newest_run(store, lambda begin: True)
        if run is None:
            raise NoSuchRunError(f"the store {store.path} has no runs yet")
        inspect_records(store, run, options.format)
    return 0


def _runs(options: argparse.Namespace) -> int:
    import pandas as pd

    with open_store(store_path(options.store), "r") as store:
        order = dict.fromkeys(s.begin.run for s in store.sessions() if s.begin.kind != "replay")
        rows = [RunView(store, run).summary() for run in order]
    if options.format == "json":
        print(json.dumps(rows))
    elif rows:
        print(pd.DataFrame(rows).drop(columns="name").to_string(index=False))
    else:
        print("no runs yet")
    return 0


def _verify(options: argparse.Namespace) -> int:
    path = store_path(options.store)
    open_store(path, "r").close()
    checked = verify(path)
    if options.format == "json":
        print(json.dumps(checked.as_json()))
    else:
        print(checked)
    return 0 if checked.ok else 1


def _gc(options: argparse.Namespace) -> int:
    path = store_path(options.store)
    open_store(path, "r").close()
    report = gc(
        path,
        keep_last=options.keep_last,
        budget=options.budget,
        redo_bound=options.max_redo,
        also=_late_sources,
        dry_run=options.dry_run,
    )
    if options.compact and not options.dry_run:
        compact(path, options.compact)
    if options.format == "json":
        print(json.dumps(dataclasses.asdict(report)))
        return 0
    would = "would remove" if options.dry_run else "removed"
    print(
        f"{would} {len(report.runs)} runs, {report.images} images and {report.pages} pages "
        f"({report.freed_bytes} bytes); {report.kept_bytes} bytes of pages stay"
    )
    if options.compact and not options.dry_run:
        print(f"a copy without free space is at {options.compact}")
    return 0


def _late_sources(entry: Entry) -> list[bytes]:
    """Pages that a record names in its own way: the sources of modules imported after the run began."""
    record = entry.record
    return [record.data["page"]] if isinstance(record, Note) and record.kind == "source" else []


if __name__ == "__main__":
    sys.exit(main())
