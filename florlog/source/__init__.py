"""Reading the program: what was added to it, what its loops carry, where a statement can run.

Pure analysis of source text with ``ast``; nothing here runs the user's code except `execution`.
"""

from __future__ import annotations

from florlog.source.calls import LogCall, LoopCall, log_calls
from florlog.source.diff import AddedStatement, Change, SourceDiff, compare
from florlog.source.execution import LocalModuleFinder, below, run_as_main
from florlog.source.instrument import Instrumented, instrument, wrapped_at
from florlog.source.liveness import carried_names
from florlog.source.program import Loop
from florlog.source.regions import Frame, Location, Program, Stack
from florlog.source.syntax import SourceError, parse

__all__ = [
    "AddedStatement",
    "Change",
    "Frame",
    "Instrumented",
    "LocalModuleFinder",
    "Location",
    "LogCall",
    "Loop",
    "LoopCall",
    "Program",
    "SourceDiff",
    "SourceError",
    "Stack",
    "below",
    "carried_names",
    "compare",
    "instrument",
    "log_calls",
    "parse",
    "run_as_main",
    "wrapped_at",
]
