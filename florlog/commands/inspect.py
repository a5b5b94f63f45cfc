"""``florlog inspect``: the records of the log, its views, and the browser."""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from florlog_wal import CorruptRecord, RunLog

from florlog.commands._arguments import add_trust, number_of, trust_of
from florlog.errors import FlorlogError
from florlog.hindsight.plan_text import plan_text
from florlog.hindsight.plan_view import plan_view
from florlog.inspect import record_forms
from florlog.inspect.image_view import images_of, images_text
from florlog.inspect.outline import outline, outline_text
from florlog.inspect.record_view import followed, open_end, selected
from florlog.inspect.redo_view import plan_for_iterations
from florlog.inspect.selection import RecordSelection, add_selection
from florlog.inspect.source_view import sources_of, sources_text
from florlog.inspect.stats import stats_of, stats_text
from florlog.inspect.value_lines import CSV_COLUMNS, value_line, values_of
from florlog.program.stores import log_of, newest_run, open_store, store_path, tree_of
from florlog.reading.reader import RunView
from florlog.reading.render import jsonable, printable

VIEWS = ("tree", "values", "images", "source", "plan")
_TAKEN = {"tree": ("at",), "values": ("at", "name"), "images": ("at",), "source": (), "plan": ("at",)}
_OF_RECORDS = ("start", "stop", "type", "at", "name", "reverse", "follow", "stats", "answers")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "words",
        metavar="VIEW RUN",
        nargs="*",
        help=f"a view ({', '.join(VIEWS)}; default: the records) and a run id (default: the newest)",
    )
    add_selection(parser)
    parser.add_argument("--limit", metavar="N", type=number_of("lines"), help="stop after N lines")
    parser.add_argument("--reverse", action="store_true", help="the newest record first")
    parser.add_argument("--follow", action="store_true", help="go on while the run is being recorded")
    parser.add_argument("--stats", action="store_true", help="figures instead of records")
    parser.add_argument(
        "--answers",
        action="store_true",
        help="the records of what replays found, which have a log of their own",
    )
    parser.add_argument(
        "--format", choices=("text", "json", "csv"), help="text, JSON lines or CSV; never opens the browser"
    )
    parser.add_argument(
        "--web", action="store_true", help="serve the browser on this machine's loopback address"
    )
    add_trust(parser)
    parser.add_argument("--port", type=int, default=8000, help="the port for --web (default 8000)")


def run(options: argparse.Namespace) -> int:
    """Show the view, the records or the browser; the exit code."""
    view, name = _words(options.words)
    _check(view, options)
    selection = RecordSelection.of(options)
    if options.web:
        from florlog.ui.web import serve

        serve(store_path(options.store), name, options.port, trust_of(options, ask=False))
        return 0
    if view is None and _wants_browser(options):
        from florlog.ui import open_browser

        return open_browser(store_path(options.store), name, selection, trust_of(options, ask=False))
    with open_store(store_path(options.store)) as store:
        chosen = name or newest_run(store)
        log = log_of(store, chosen)
        if options.answers:
            if log.answers is None:
                raise FlorlogError(f"no replay has stored anything for run {chosen}")
            log = log.answers
        shown = _Shown(log, chosen, selection, options)
        try:
            shown.view(view) if view else shown.records()
        except CorruptRecord as error:
            sys.stdout.flush()
            print(f"florlog: {error}; florlog verify checks the rest", file=sys.stderr)
            return 1
        except KeyboardInterrupt:  # the user ends following before the run ends
            return 130
        sys.stdout.flush()
    return 0


def _words(words: list[str]) -> tuple[str | None, str | None]:
    view = words[0] if words and words[0] in VIEWS else None
    rest = words[1:] if view else words
    if len(rest) > 1:
        listed = ", ".join(VIEWS)
        raise FlorlogError(
            f"there is no view {rest[0]!r}: write florlog inspect [VIEW] [RUN], VIEW one of {listed}"
        )
    return view, rest[0] if rest else None


def _check(view: str | None, options: argparse.Namespace) -> None:
    """Refuse options that would have no effect."""
    flags = {"start": "from", "stop": "to"}
    given = [name for name in _OF_RECORDS if getattr(options, name) not in (None, False)]
    if view and (extra := [flags.get(name, name) for name in given if name not in _TAKEN[view]]):
        raise FlorlogError(f"the view {view} does not take --{extra[0]}")
    if options.format == "csv" and (options.stats or view not in (None, "values")):
        what = "--stats" if options.stats else f"the view {view}"
        raise FlorlogError(f"{what} has no CSV form: use --format json")
    for one, other in (
        ("follow", "reverse"),
        ("follow", "stats"),
        ("reverse", "stats"),
        ("follow", "answers"),
    ):
        if getattr(options, one) and getattr(options, other):
            raise FlorlogError(f"--{one} and --{other} do not go together")


def _wants_browser(options: argparse.Namespace) -> bool:
    if (
        options.format
        or options.limit is not None
        or any(getattr(options, name) for name in ("stats", "follow", "reverse", "answers"))
    ):
        return False
    served = "TEXTUAL_DRIVER" in os.environ  # textual-serve: a web browser reads the pipe
    if not served and not (sys.stdout.isatty() and sys.stdin.isatty()):
        return False
    try:
        import textual  # noqa: F401
    except ImportError:
        print(
            "florlog: the browser needs textual: pip install 'florlog[inspect]'; here is text",
            file=sys.stderr,
        )
        return False
    return True


class _Shown:
    """Prints in the chosen format."""

    def __init__(
        self, log: RunLog, run: str, selection: RecordSelection, options: argparse.Namespace
    ) -> None:
        self.log, self.run, self.selection = log, run, selection
        self.format = options.format or "text"
        self.options = options
        self.printed = 0  # records, or lines of a view
        self.colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def records(self) -> None:
        """The records, or the figures about them."""
        options = self.options
        if options.stats:
            stats = stats_of(self.log, self.run, self.selection)
            self._lines([json.dumps(stats.as_json())] if self.format == "json" else stats_text(stats))
            return
        if options.follow:
            found = followed(self.log, self.selection)
        else:
            found = selected(self.log, self.selection, reverse=options.reverse)
        if self.format == "csv":
            self._csv(
                record_forms.CSV_COLUMNS,
                (record_forms.as_row(entry, self.run, path) for entry, path in found),
            )
        elif self.format == "json":
            self._lines(json.dumps(record_forms.as_json(entry, self.run, path)) for entry, path in found)
        else:
            self._lines(record_forms.as_text(entry, path, colour=self.colour) for entry, path in found)
        if (notice := open_end(self.log)) is not None:
            sys.stdout.flush()
            print(f"florlog: {notice}", file=sys.stderr)
        self._say_if_nothing("record")

    def _say_if_nothing(self, what: str) -> None:
        if not self.printed and not self.selection.everything:
            sys.stdout.flush()
            text = f"no {what} of {printable(self.run)} fits {printable(str(self.selection))}"
            print(f"florlog: {text}", file=sys.stderr)

    def view(self, view: str) -> None:
        """One of the views."""
        getattr(self, f"_{view}")()

    def _tree(self) -> None:
        tree, at = tree_of(self.log), self.selection.at
        if self.format == "json":
            self._lines(json.dumps({"depth": depth, **facts}) for depth, facts in outline(tree, at))
        else:
            self._lines(outline_text(tree, at))

    def _values(self) -> None:
        found = values_of(RunView(lambda: self.log, self.run), self.selection)
        if self.format == "json":
            self._lines(
                json.dumps(
                    {
                        "name": v.name,
                        "path": dict(v.path),
                        "value": jsonable(v.value),
                        "trust": v.trust,
                        "statement": {"file": v.statement.file, "line": v.statement.line},
                    }
                )
                for v in found
            )
        elif self.format == "csv":
            rows = (
                (record_forms.path_text(v.path), printable(v.name), printable(json.dumps(jsonable(v.value))), v.trust,
                 printable(v.statement.file), v.statement.line)
                for v in found
            )  # fmt: skip
            self._csv(CSV_COLUMNS, rows)
        else:
            self._lines(value_line(v, colour=self.colour) for v in found)
        self._say_if_nothing("value")

    def _images(self) -> None:
        at = self.selection.at
        found = (image for image in images_of(self.log) if at is None or at(image.path))
        if self.format == "json":
            self._lines(
                json.dumps(
                    {
                        "lsn": image.lsn,
                        "path": dict(image.path),
                        "state_bytes": image.state_bytes,
                        "written_bytes": image.written_bytes,
                        "stall_seconds": image.stall_seconds,
                        "persist_seconds": image.persist_seconds,
                        "saves_seconds": image.saves,
                        "table": image.table.hex(),
                    }
                )
                for image in found
            )
        else:
            self._lines(images_text(found))

    def _source(self) -> None:
        sources = sources_of(self.log, tree_of(self.log))
        if self.format == "json":
            self._lines(
                json.dumps(
                    {
                        "file": source.path,
                        "module": source.module,
                        "text": source.text,
                        "statements": [
                            {"line": line, "kind": s.kind, "names": list(s.names), "qualname": s.qualname}
                            for line, held in sorted(source.statements.items())
                            for s in held
                        ],
                    }
                )
                for source in sources
            )
        else:
            self._lines(sources_text(sources))

    def _plan(self) -> None:
        plan, request = plan_for_iterations(self.log, tree_of(self.log), self.selection.at)
        view = plan_view(plan, request)
        self._lines([json.dumps(view) if self.format == "json" else plan_text(view)])

    def _lines(self, lines: Iterable[str]) -> None:
        follow = self.options.follow
        for line in self._limited(lines):
            print(line, flush=follow)

    def _csv(self, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        for row in self._limited(rows):
            writer.writerow(row)
            if self.options.follow:
                sys.stdout.flush()

    def _limited(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in itertools.islice(items, self.options.limit):
            self.printed += 1
            yield item
