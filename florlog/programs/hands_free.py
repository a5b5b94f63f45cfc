"""The run around an unmodified script: recording, resuming and replaying it."""

from __future__ import annotations

import ast
import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from florlog_wal import RunBegin

from florlog.bridges.plain_loops import Runtime
from florlog.program.process import HandsFree, this_process
from florlog.program.terminal import report
from florlog.programs.scripts import LocalModuleFinder, run_as_main
from florlog.recording.session import run as open_run
from florlog.source.carry.changeset import loop_effects
from florlog.source.edit.cell_text import executed
from florlog.source.edit.loop_choice import Choice, choose
from florlog.source.edit.rewrite import Rewrite, reading, spoken
from florlog.source.names.syntax import parse, read_as

KEY = "hands_free"


def program_files(script: str, root: Path, text: str | None = None) -> dict[str, str]:
    """The script and the local modules that it imports: file -> module name, found without running anything.

    ``text`` is the script's where there is no such file.
    """
    found = {script: "__main__"}
    pending = [script]
    while pending:
        file = Path(pending.pop())
        source = text if text is not None and str(file) == script else file.read_text(encoding="utf-8")
        tree = parse(source, str(file))
        for name, bases in _imports(tree, file, root):
            for base in bases:
                stem = base.joinpath(*name.split(".")) if name else base
                for path in (stem.with_suffix(".py"), stem / "__init__.py"):
                    if path.is_file() and str(path) not in found:
                        inside = path.is_relative_to(root)
                        parts = path.relative_to(root).with_suffix("").parts if inside else (name,)
                        found[str(path)] = ".".join(part for part in parts if part != "__init__")
                        pending.append(str(path))
    return found


def _imports(tree: ast.Module, file: Path, root: Path) -> Iterator[tuple[str, list[Path]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                for end in range(1, len(parts) + 1):
                    yield ".".join(parts[:end]), [root]
        elif isinstance(node, ast.ImportFrom):
            base = root if not node.level else file.parents[node.level - 1]
            module = node.module or ""
            parts = module.split(".") if module else []
            for end in range(len(parts) + 1):
                yield ".".join(parts[:end]), [base]
            for alias in node.names:
                yield ".".join([*parts, alias.name]), [base]


def execute(
    script: str, argv: list[str], *, module: str | None, name: str, store: Path, announce: bool
) -> None:
    """Run a script as ``__main__`` with a run open around it; records, or resumes where that was commanded."""
    root = Path.cwd() if module else Path(script).parent
    files = program_files(script, root)
    texts = {file: Path(file).read_text(encoding="utf-8") for file in files}
    choice = choose(texts)
    program = HandsFree({KEY: True, "module": module or ""}, files)
    finder = LocalModuleFinder.install(lambda file: str(Path(file).absolute()) in files)
    try:
        with this_process.recording_hands_free(program), read_as(reading(choice.loops)):
            around = session(
                name, store=store, announce=Announcement(choice, store, texts) if announce else None
            )
            run_as_main(script, argv, instrumented=True, around=around, module=module)
    finally:
        finder.uninstall()


def replay_hands_free(script: str, begin: RunBegin, how: Rewrite, text: str | None = None) -> None:
    """Run a script, or a ``text`` in its place, in the reading in which it was recorded; a replay was commanded."""
    module = str(begin.environment.get("module", "")) or None
    with read_as(how):
        run_as_main(
            script, begin.argv, instrumented=True, around=session(begin.name), module=module, text=text
        )


def session(
    name: str,
    *,
    store: Path | None = None,
    announce: Callable[[Runtime], None] | None = None,
    overhead: float = 0.02,
    resume: str = "never",
) -> Callable[[], AbstractContextManager[None]]:
    """What opens the run, once the script's ``__main__`` is there."""

    @contextlib.contextmanager
    def opened() -> Iterator[None]:
        leaving: SystemExit | None = None
        with open_run(name, store=store, overhead=overhead, resume=resume) as run:
            runtime = Runtime(run)
            runtime.install()
            if announce is not None:
                runtime.on_first_loop = lambda: announce(runtime)
            try:
                yield
            except SystemExit as error:
                if error.code not in (None, 0):
                    raise
                leaving = error
            finally:
                runtime.uninstall()
                if announce is not None and not runtime.entered:
                    announce(runtime)
        if leaving is not None:
            raise leaving

    return opened


class Announcement:
    """What was found, in five lines."""

    def __init__(self, choice: Choice, store: Path, texts: dict[str, str]) -> None:
        self._choice, self._store, self._texts = choice, store, texts

    def __call__(self, runtime: Runtime) -> None:
        if not runtime.run.id:  # not recorded, as on all ranks but the first
            return
        loops = [
            f"{name} ({Path(file).name}:{line})"
            for file, lines in self._choice.loops.items()
            for line, name in sorted(lines.items())
        ]
        told = sum(
            isinstance(node, ast.Call) and spoken(node)
            for text in self._texts.values()
            for node in ast.walk(ast.parse(executed(text)))
        )
        texts = {file: self._texts[file] for file in self._choice.loops}
        unknown = dict.fromkeys(
            f"{Path(loop.file).name}:{effect.line} what `{effect.text}` changes"
            for loop in loop_effects(texts)
            for effect in loop.unknown
        )
        left = [*self._choice.left, *unknown, *(f"the state of {text}" for text in runtime.opaque)]
        verb = "resuming" if runtime.run.resumed else "recording"
        report(f"{verb} run {runtime.run.id} in {self._store}")
        report(f"loops: {_listed(loops) or 'none found, the run is one transaction'}")
        report(f"tracked: {_listed(list(runtime.tracked)) or 'nothing by name'}; and what the loops carry")
        report(f"statements: {told} that tell values, in {len(self._texts)} files")
        report(f"not understood: {_listed(left) or 'nothing'}")


def _listed(items: list[str], most: int = 8) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def print_traceback(error: BaseException, script: str) -> None:
    """The traceback as ``python SCRIPT`` would have shown it."""
    import traceback

    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != script:
        trace = trace.tb_next
    sys.stdout.flush()
    traceback.print_exception(type(error), error, trace or error.__traceback__)
