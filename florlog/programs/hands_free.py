"""The run around an unmodified script: recording, resuming and replaying it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from florlog_wal import RunBegin

from florlog.bridges.plain_loops import Runtime
from florlog.program.environment import HANDS_FREE
from florlog.program.process import HandsFree, this_process
from florlog.programs.announcement import Announcement
from florlog.programs.finders import LocalModuleFinder
from florlog.programs.program_files import program_files
from florlog.programs.scripts import run_as_main
from florlog.recording.session import run as open_run
from florlog.source.edit.instrument import Instrumenter
from florlog.source.edit.loop_choice import choose
from florlog.source.edit.rewrite import Rewrite, reading
from florlog.source.names.syntax import read_as


def record_script(
    script: str, argv: Sequence[str], *, module: str | None, name: str, store: Path, announce: bool
) -> None:
    """Run a script as ``__main__`` with a run open around it; it is resumed where that was commanded.

    ``script`` is an absolute path; ``module`` is its name where it runs as ``python -m`` does.
    """
    root = Path.cwd() if module else Path(script).parent
    files = program_files(script, root)
    texts = {file: Path(file).read_text(encoding="utf-8") for file in files}
    choice = choose(texts)
    program = HandsFree({HANDS_FREE: True, "module": module or ""}, files)
    instrumenter = Instrumenter()
    with (
        this_process.recording_hands_free(program),
        LocalModuleFinder(files, instrumenter),
        read_as(reading(choice.loops)),
    ):
        around = open_around(
            name, store=store, announce=Announcement(choice, store, texts) if announce else None
        )
        run_as_main(script, argv, instrumenter=instrumenter, around=around, module=module)


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
    announce: Callable[[Runtime], None] | None = None,
    overhead: float = 0.02,
    resume: str = "never",
) -> Callable[[], AbstractContextManager[None]]:
    """What opens the run, once the script's ``__main__`` is there; the arguments are those of `florlog.run`.

    ``announce`` is called once, when the first loop begins or, without any, at the end.
    """

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
