"""``florlog export``: values out to files and services that others read."""

from __future__ import annotations

import argparse
from pathlib import Path

from .._reader import Log
from .._session import open_store, store_path
from ..export.mlflow import write_mlflow
from ..export.tensorboard import write_tensorboard
from ..export.values import FORMATS, write_values

HELP = "Write a run's values for other tools: files, TensorBoard, MLflow."


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
    for sub in (values, board, flow):
        sub.add_argument("--run", metavar="ID", help="the run (default: the newest)")


def run(options: argparse.Namespace) -> int:
    """Write, and say what was written."""
    with Log(open_store(store_path(options.store), "r")) as log:
        view = log.run(options.run)
        if options.what == "values":
            count = write_values(view.columns(*(options.name or ())), options.output, options.format)
            print(f"{count} rows of run {view.id} in {options.output}")
        elif options.what == "tensorboard":
            count = write_tensorboard(view, options.output)
            print(f"{count} values of run {view.id} below {options.output}")
        else:
            print(f"run {view.id} is MLflow run {write_mlflow(view, options.uri, options.experiment)}")
    return 0
