"""Hindsight without the script: an expression put into a scratch copy of the recorded source, and replayed.

The copy is a `SourceMirror`: imports, and what the script looks for relative to ``__file__``, are found.  The replay
runs in a process of its own, in the directory in which the run was recorded.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from florlog_recovery import RunTree
from florlog_wal import RunLog

from florlog.errors import FlorlogError
from florlog.inspect.selection import At
from florlog.inspect.source_view import Recorded
from florlog.programs.permission import Trust, permit
from florlog.programs.source_mirror import SourceMirror
from florlog.questions.answer_json import answer_json
from florlog.redo.replaying import Question, replay_elsewhere

_LEAVING = (ast.Return, ast.Raise, ast.Break, ast.Continue)


@dataclass(frozen=True, slots=True)
class InsertionPoint:
    """Where a statement is put: after a recorded line (0: before the first), at an indentation."""

    line: int
    indent: int


def place_at(text: str, line: int) -> InsertionPoint:
    """The place after the statement of a line; before one that leaves, inside one that has a block."""
    found: ast.stmt | None = None
    for node in ast.walk(ast.parse(text)):
        first = getattr(node, "lineno", 0)
        inside = isinstance(node, ast.stmt) and first <= line <= (node.end_lineno or first)
        if inside and (found is None or first >= found.lineno):
            found = node  # type: ignore[assignment]
    if found is None:
        raise FlorlogError(f"no statement stands at line {line}")
    if isinstance(found, _LEAVING):
        return InsertionPoint(found.lineno - 1, found.col_offset)
    body = getattr(found, "body", None)
    if body:
        return InsertionPoint(body[0].lineno - 1, body[0].col_offset)
    return InsertionPoint(found.end_lineno or found.lineno, found.col_offset)


def log_statement(typed: str) -> str:
    """``norm=expression``, or a bare expression (logged as "asked"), as arguments of a log call.

    Raises `FlorlogError` for what is neither.
    """
    for text in (typed, f"asked=({typed})"):
        try:
            call = ast.parse(f"log({text})", mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if (
            isinstance(call, ast.Call)
            and call.keywords
            and not call.args
            and all(k.arg for k in call.keywords)
        ):
            return ast.unparse(call).removeprefix("log(").removesuffix(")")
    raise FlorlogError(f"cannot read {typed!r}: type an expression, or name=expression")


def inserted(text: str, place: InsertionPoint, typed: str) -> str:
    """The text with a statement that logs what was typed."""
    lines = text.splitlines(keepends=True)
    if place.line and not lines[place.line - 1].endswith("\n"):
        lines[place.line - 1] += "\n"
    margin = " " * place.indent
    # Its own name for florlog: a plain import here would make the function's use of the global one local.
    new = f"{margin}import florlog as florlog_asked\n{margin}florlog_asked.log({log_statement(typed)})\n"
    return "".join([*lines[: place.line], new, *lines[place.line :]])


def default_line(sources: Sequence[Recorded], tree: RunTree) -> tuple[Recorded, int]:
    """The log statement inside the most loops: where most questions are meant.  Raises `FlorlogError`."""
    best: tuple[int, Recorded, int] | None = None
    for source in sources:
        for line, statements in source.statements.items():
            depth = max(len(s.loops) + (s.kind == "log") / 2 for s in statements)
            if best is None or depth > best[0]:
                best = (depth, source, line)  # type: ignore[assignment]
    if best is None:
        raise FlorlogError(f"the source of run {tree.run} was not recorded")
    return best[1], best[2]


def condition(text: str, tree: RunTree) -> str | None:
    """What was typed as a condition for ``--where``: ``7``, ``epoch=7`` and ``epoch == 7`` mean the same."""
    text = text.strip()
    if not text:
        return None
    if text.isdigit() and tree.root.loops:
        return f"{tree.root.loops[0].name} == {text}"
    try:
        ranges = At.parse(text).ranges
    except FlorlogError:
        return text
    parts = [
        f"{name} == {first}"
        if stop == first + 1
        else f"{name} >= {first}" + (f" and {name} < {stop}" if stop != float("inf") else "")
        for name, (first, stop) in ranges.items()
    ]
    return " and ".join(parts)


def replay(
    log: RunLog,
    tree: RunTree,
    sources: Sequence[Recorded],
    changed: Recorded,
    place: InsertionPoint,
    typed: str,
    where: str,
    trust: Trust,
) -> dict[str, Any]:
    """Ask a run what was typed; the JSON of ``florlog replay``.

    Raises `FlorlogError` with its message, `UntrustedRunError` where the run's code may not be executed.
    """
    texts = {source.path: source.text for source in sources}
    texts[changed.path] = inserted(changed.text, place, typed)
    script = next((source.path for source in sources if source.module == "__main__"), None)
    if script is None:
        raise FlorlogError("the run's script was not recorded: it was not run as a file")
    with SourceMirror(permit(log, tree, trust), script, texts) as mirror:
        shown = {mirror.path(recorded): recorded for recorded in texts}
        question = Question(str(log.path), tree.run, mirror.script, where=condition(where, tree), shown=shown)
        cwd = tree.begin.cwd if Path(tree.begin.cwd).is_dir() else None
        # What the replay says meanwhile has no place on a screen.
        return answer_json(replay_elsewhere(question, cwd=cwd, heard=lambda text: None))
