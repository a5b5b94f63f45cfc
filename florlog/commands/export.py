"""``florlog export``: values out to files and services that others read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

from florlog.commands._arguments import add_trust, iteration_path, trust_of
from florlog.export.value_file import FORMATS, write_values
from florlog.following.trust import where
from florlog.program.stores import open_store, store_path
from florlog.reading.reader import Log, RunView
from florlog.reading.render import printable


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be exported, each with its arguments."""
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    values = what.add_parser(
        "values", help="a table, a row per iteration", description="Write a table of values."
    )
    values.add_argument("-o", "--output", metavar="FILE", type=Path, required=True)
    values.add_argument("--format", choices=FORMATS, help="default: by the file's ending")
    values.add_argument("--name", metavar="NAME", action="append", help="only these names; may be repeated")
    board = what.add_parser("tensorboard", help="event files", description="Write numbers as event files.")
    board.add_argument("-o", "--output", metavar="DIR", type=Path, required=True)
    flow = what.add_parser(
        "mlflow", help="an MLflow run", description="Make an MLflow run of params and numbers."
    )
    flow.add_argument("--uri", help="MLflow's tracking URI (default: as MLflow finds it)")
    flow.add_argument("--experiment", default="florlog", help="the experiment's name (default: florlog)")
    state = what.add_parser(
        "state",
        help="the state at an iteration, as safetensors or for torch.load",
        description="Write the state at an iteration: tensors by name, other values in the metadata (safetensors), "
        "or a file that torch.load reads with weights_only=True. Where there is no image the recorded script is "
        "executed from the nearest one on; exit code 1 if that does not give what was recorded.",
    )
    state.add_argument("run", metavar="RUN", nargs="?", help="the run (default: the newest)")
    state.add_argument(
        "--at",
        metavar="PLACE",
        type=iteration_path,
        required=True,
        help="the iteration, such as 'epoch=3, step=17'",
    )
    state.add_argument("--end", action="store_true", help="the iteration's end instead of its start")
    state.add_argument(
        "-o", "--output", metavar="FILE", type=Path, required=True, help="ends in .safetensors, .pt or .pth"
    )
    add_trust(state)
    for sub in (values, board, flow):
        sub.add_argument("--run", metavar="ID", help="the run (default: the newest)")


def run(options: argparse.Namespace) -> int:
    """Write, and say what was written."""
    with Log(open_store(store_path(options.store))) as log:
        view = log.run(options.run)
        if options.what == "values":
            count = write_values(view.columns(*(options.name or ())), options.output, options.format)
            print(f"{count} rows of run {printable(view.id)} in {options.output}")
        elif options.what == "tensorboard":
            from florlog.export.to_tensorboard import write_tensorboard

            count = write_tensorboard(view, options.output)
            print(f"{count} values of run {printable(view.id)} below {options.output}")
        elif options.what == "state":
            print(_state(view, options))
        else:
            from florlog.export.to_mlflow import write_mlflow

            made = write_mlflow(view, options.uri, options.experiment)
            print(f"run {printable(view.id)} is MLflow run {made}")
    return 0


def _state(view: RunView, options: argparse.Namespace) -> str:
    from florlog.export.state_file import write_state, writer_of  # which imports torch
    from florlog.redo.past_state import state_at

    at: Literal["start", "end"] = "end" if options.end else "start"
    writer_of(options.output)  # before anything is executed
    state = state_at(view.log, view.tree(), options.at, at, trust_of(options))
    about = {"run": view.id, "path": dict(options.at), "at": at, "trust": state.trust, "detail": state.detail}
    tensors, left_out = write_state(state, about, options.output)
    doubt = f" ({state.detail})" if state.detail else ""
    missing = f"; left out, as the format has nothing for them: {', '.join(left_out)}" if left_out else ""
    return (
        f"{tensors} tensors of run {printable(view.id)}, {at} of {where(options.at)}, in {options.output}: "
        f"{state.trust}{doubt}, {state.redone} iterations redone{missing}"
    )
