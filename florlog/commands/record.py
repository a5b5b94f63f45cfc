"""``florlog record``: an unmodified script, hands-free."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import traceback
from pathlib import Path

from florlog.errors import FlorlogError, OwnRunError
from florlog.program.stores import store_path
from florlog.programs.kinds import HandsFreeScript
from florlog.programs.program_files import module_file

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "-m", dest="module", action="store_true", help="SCRIPT is the name of a module, as for python -m"
    )
    parser.add_argument(
        "--no-audit", dest="audit", action="store_false", help="do not audit the run while it is recorded"
    )
    parser.add_argument("target", metavar="SCRIPT [ARGS]", nargs=argparse.REMAINDER)


def run(options: argparse.Namespace) -> int:
    """Run the script; its exit code."""
    if not options.target:
        raise FlorlogError("record needs a script: florlog record SCRIPT [ARGS]")
    target, *argv = options.target
    script = _module_file(target) if options.module else str(Path(target).absolute())
    if not Path(script).is_file():
        raise FlorlogError(f"there is no script {script}")
    store = store_path(options.store)
    os.environ["FLORLOG_STORE"] = str(store)
    name = target.rpartition(".")[2] if options.module else Path(script).stem
    try:
        HandsFreeScript.record(
            script,
            argv,
            module=target if options.module else None,
            name=name,
            store=store,
            audit=options.audit,
        )
    except OwnRunError:
        raise
    except KeyboardInterrupt as error:
        _print_traceback(error, script)
        return 130
    except Exception as error:
        _print_traceback(error, script)
        return 1
    return 0


def _module_file(name: str) -> str:
    """The file of a module that is run; its packages are not imported, since that is a part of the program."""
    if (own := module_file(name, Path.cwd())) is not None:
        return str(own)
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
    except ImportError as error:
        raise FlorlogError(f"cannot find module {name}: {error}") from None
    if spec is None or spec.origin is None:
        raise FlorlogError(f"there is no module {name} to run")
    return str(Path(spec.origin).absolute())


def _print_traceback(error: BaseException, script: str) -> None:
    """Print the traceback as ``python SCRIPT`` prints it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != script:
        trace = trace.tb_next
    sys.stdout.flush()
    traceback.print_exception(type(error), error, trace or error.__traceback__)
