"""Runs that a script opens around a framework's training, for the modules that are named like frameworks.

The framework's functions that have the training's loops are adopted while the run is open (``specs/adoption.md``), so
its loops are the run's loops.  Where its source is not known, its hooks record them.  The script itself is no other
program for that: its own loops are recorded where it writes ``run.loop``, and its values where it writes
``florlog.log``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from florlog.bridges.plain_loops import Runtime
from florlog.program.environment import main_script
from florlog.program.process import this_process
from florlog.program.terminal import reason, warn
from florlog.programs.adoption import Adoptions, adopting, adoptions_of
from florlog.programs.hooking import hooking
from florlog.recording.roles import Replay
from florlog.recording.run import Run
from florlog.recording.session import run as open_run
from florlog.source.edit.instrument import Instrumenter
from florlog.source.edit.recorded_reading import recorded_reading
from florlog.source.names.syntax import read_as


@contextmanager
def recorded(framework: str, name: str | None, options: dict[str, Any]) -> Iterator[Run]:
    """Within, a run is open, and the loops of a framework are its loops.

    ``name``: of the run, None: the script's; ``options``: the other arguments of `florlog.run`, which raises what it
    raises.  Where a run is open around the script already, as under ``florlog record``, that is the run.
    """
    if this_process.hands_free is not None and this_process.run is not None:
        yield this_process.run
        return
    with ExitStack() as around:
        if not isinstance(this_process.role, Replay):  # which has adopted what the recording had
            found = _adoptions(framework)
            adopted = {file: part.text for file, part in found.modules.items()}
            how = recorded_reading(adopted, hands_free=False)
            if how is not None:
                around.enter_context(read_as(how))
                around.enter_context(adopting(found.modules, Instrumenter()))
            around.enter_context(hooking(found.hooked))
        run = around.enter_context(open_run(name or Path(main_script()).stem or framework, **options))
        runtime = Runtime(run)
        runtime.install()
        around.callback(runtime.uninstall)
        yield run


def _adoptions(framework: str) -> Adoptions:
    try:
        return adoptions_of(framework)
    except Exception as error:
        if this_process.role is not None:
            raise
        warn(f"the loops of {framework} are not recorded: {reason(error)}")
        return Adoptions({}, {})
