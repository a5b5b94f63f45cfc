"""The run around an unmodified script: recording, resuming and replaying it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import CodeType

from florlog_wal import RunBegin

from florlog.bridges.plain_loops import Runtime
from florlog.program.environment import HANDS_FREE
from florlog.program.process import HandsFree, this_process
from florlog.program.terminal import reason, warn
from florlog.programs.adoption import Adoptions, adopting, adoptions
from florlog.programs.announcement import Announcement
from florlog.programs.finders import LocalModuleFinder
from florlog.programs.hooking import hooking
from florlog.programs.program_files import program_files
from florlog.programs.scripts import run_as_main
from florlog.recording.session import run as open_run
from florlog.source.edit.instrument import Instrumenter
from florlog.source.edit.loop_choice import Choice, choose
from florlog.source.edit.rewrite import Rewrite, reading
from florlog.source.names.syntax import read_as


def record_script(
    script: str,
    argv: Sequence[str],
    *,
    module: str | None,
    name: str,
    store: Path,
    announce: bool,
    audit: bool = True,
) -> None:
    """Run a script as ``__main__`` with a run open around it; it is resumed where that was commanded.

    ``script`` is an absolute path; ``module`` is its name where it runs as ``python -m`` does; ``audit`` as of
    `florlog.run`.
    """
    understood = _understood(script, module)
    if understood is None:
        run_as_main(script, argv, module=module)
        return
    files, texts, choice, rewrite, frameworks = understood
    program = HandsFree({HANDS_FREE: True, "module": module or ""}, files)
    instrumenter = _Rewriter()
    with (
        this_process.recording_hands_free(program),
        LocalModuleFinder(files, instrumenter),
        read_as(rewrite),
        adopting(frameworks.modules, instrumenter),
        hooking(frameworks.hooked),
    ):
        around = open_around(
            name,
            store=store,
            announce=Announcement(choice, store, texts, frameworks.hooked) if announce else None,
            audit=audit,
        )
        run_as_main(script, argv, instrumenter=instrumenter, around=around, module=module)


def _understood(
    script: str, module: str | None
) -> tuple[dict[str, str], dict[str, str], Choice, Rewrite, Adoptions] | None:
    """A program's files with their modules and with their texts, its loops, how it is rewritten, and what it adopts.

    None, and a warning, where it cannot be read, as where it may import a file that is no Python.  Raises where a
    resume was commanded.
    """
    try:
        files = program_files(script, Path.cwd() if module else Path(script).parent)
        texts = {file: Path(file).read_text(encoding="utf-8") for file in files}
        frameworks = adoptions(texts.values(), texts.keys())
        choice = choose(texts | {file: part.text for file, part in frameworks.modules.items()})
        return files, texts, choice, reading(choice.loops), frameworks
    except Exception as error:
        if this_process.role is not None:
            raise
        warn(f"{script} is run without being recorded: {reason(error)}")
        return None


class _Rewriter(Instrumenter):
    """Compiles the files of a program that is recorded; one that cannot be rewritten runs as it is."""

    def code(self, source: str, filename: str) -> CodeType:
        """The code of a module's text.  Raises what Python raises for it."""
        try:
            return Instrumenter.code(self, source, filename)
        except Exception as error:
            if this_process.role is not None:
                raise
            why = reason(error)
        made: CodeType = compile(source, filename, "exec", dont_inherit=True)
        warn(f"{filename} is run as it is, its loops and values are not recorded: {why}")
        return made


def replay_script(
    script: str,
    begin: RunBegin,
    instrumenter: Instrumenter,
    rewrite: Rewrite,
    *,
    module: str | None,
    text: str | None,
) -> None:
    """Run a script, or a ``text`` in its place, rewritten as it was for the recording; a replay was commanded."""
    around = open_around(begin.name)
    with read_as(rewrite):
        run_as_main(script, begin.argv, instrumenter=instrumenter, around=around, module=module, text=text)


def open_around(
    name: str,
    *,
    store: Path | None = None,
    announce: Announcement | None = None,
    overhead: float = 0.02,
    resume: str = "never",
    audit: bool = True,
) -> Callable[[], AbstractContextManager[None]]:
    """What opens the run, once the script's ``__main__`` is there; the arguments are those of `florlog.run`.

    ``announce`` is told when the run is open, and when the first loop begins or, without any, at the end.
    """

    @contextlib.contextmanager
    def opened() -> Iterator[None]:
        leaving: SystemExit | None = None
        with open_run(name, store=store, overhead=overhead, resume=resume, audit=audit) as run:
            runtime = Runtime(run)
            runtime.install()
            if announce is not None:
                runtime.on_first_loop = lambda: _announced(announce.begun, runtime)
                _announced(announce.opened, runtime)
            try:
                yield
            except SystemExit as error:
                if error.code not in (None, 0):
                    raise
                leaving = error
            finally:
                runtime.uninstall()
                if not runtime.entered:
                    runtime.on_first_loop()
        if leaving is not None:
            raise leaving

    return opened


def _announced(announce: Callable[[Runtime], None], runtime: Runtime) -> None:
    try:
        announce(runtime)
    except Exception as error:
        warn(f"what was found in the program cannot be listed: {reason(error)}")
