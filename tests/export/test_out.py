"""Values in Python, in files, and in other tools, each read back by the tool itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import florlog
from florlog.commands import main
from tests.inspect.stores import evil, train


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("out") / "store"
    train(path)
    train(path, lr=0.1)
    return path


def test_arrow_and_sql_answer_as_pandas_does(store: Path) -> None:
    with florlog.open(store) as log:
        frame = log.values()
        table = log.run().to_arrow()
        assert table.column("loss").to_pylist()[:3] == [None, None, frame["loss"][2]]
        assert str(table.schema.field("epoch").type) == "int64"
        means = log.sql(
            "select run, epoch, avg(loss) as mean from iterations where epoch is not null "
            "group by all order by run, epoch"
        )
        assert means["run"].nunique() == 2
        mine = means[means["run"] == log.run().id]["mean"].to_numpy()
        assert np.allclose(mine, frame.groupby("epoch")["loss"].mean().to_numpy())
        lr = log.sql("select value from params where name = 'lr' order by value")["value"]
        assert lr.tolist() == ["0.01", "0.1"]
        assert log.sql("select count(*) as n from runs")["n"].tolist() == [2]


def test_names_of_any_kind_go_into_every_table(tmp_path: Path) -> None:
    evil(tmp_path / "store")
    with florlog.open(tmp_path / "store") as log:
        for run in log.runs:
            assert "<script" not in run._repr_html_()
            run.values()


def test_a_plot_has_a_curve_for_each_iteration_around_the_loop(store: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    with florlog.open(store) as log:
        axes = log.run().plot("loss", x="step")
        assert [len(line.get_xdata()) for line in axes.lines] == [4, 4, 4]
        assert len(log.run().plot("loss").lines[0].get_xdata()) == 12
        with pytest.raises(florlog.FlorlogError, match="nothing was logged as 'nothing'"):
            log.run().plot("nothing")
        assert log.run()._repr_html_().count("<polyline") >= 1
        assert log._repr_html_().count("<tr") == 3


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_a_file_of_values_reads_back_equal(store: Path, tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"values.{ending}"
    command = ["export", "values", "-o", str(file), "--name", "loss", "--name", "note"]
    assert main(["export", "--store", str(store), *command[1:]]) == 0
    read = {
        "csv": pd.read_csv,
        "parquet": pd.read_parquet,
        "jsonl": lambda f: pd.read_json(f, lines=True, precise_float=True),
    }[ending]
    found = read(file)
    with florlog.open(store) as log:
        frame = log.values("loss", "note")
    assert found["loss"].dropna().tolist() == pytest.approx(frame["loss"].dropna().tolist(), abs=0, rel=1e-15)
    assert found["note"].dropna().tolist() == frame["note"].dropna().tolist()
    assert found["epoch"].tolist() == frame["epoch"].tolist()


def test_a_file_without_a_known_ending_is_wrong_use(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--store", str(store), "values", "-o", str(tmp_path / "x.doc")]) == 2
    assert "end its name in .csv" in capsys.readouterr().err


def test_tensorboard_reads_the_event_files(store: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert main(["export", "--store", str(store), "tensorboard", "-o", str(tmp_path)]) == 0
    with florlog.open(store) as log:
        run = log.run()
        events = EventAccumulator(str(tmp_path / run.id))
        events.Reload()
        losses = [event.value for event in events.Scalars("loss")]
        assert losses == [np.float32(x) for x in run.values("loss")["loss"]]


def test_mlflow_reads_the_run(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is large and only its own extra has it")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    assert main(["export", "--store", str(store), "mlflow", "--uri", uri]) == 0
    client = mlflow.MlflowClient(tracking_uri=uri)
    (found,) = client.search_runs([client.get_experiment_by_name("florlog").experiment_id])
    assert found.data.params == {"lr": "0.1", "epochs": "3"}
    with florlog.open(store) as log:
        losses = log.values("loss")["loss"].tolist()
    history = sorted(client.get_metric_history(found.info.run_id, "loss"), key=lambda metric: metric.step)
    assert [metric.value for metric in history] == losses


def test_diff_names_the_first_iteration_whose_values_differ(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with florlog.open(store) as log:
        first, second = (run.id for run in log.runs)
    assert main(["diff", first, second, "--store", str(store), "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["params"] == {"lr": [0.01, 0.1]}
    assert found["source"] == {}
    assert found["values"]["first"] == {"epoch": 0, "step": 0}
    assert found["values"]["values"]["lr"] == [[0.01], [0.1]]
    assert main(["diff", first, first, "--store", str(store)]) == 0
    assert "every recorded value is equal" in capsys.readouterr().out


def test_what_is_not_installed_is_named_in_one_line() -> None:
    from florlog.program.extras import need

    with pytest.raises(florlog.FlorlogError, match=r"pip install 'florlog\[frame\]'"):
        need("a_library_that_nobody_has", "frame")


def test_a_malicious_run_goes_out_as_data_and_nothing_of_it_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in evil(tmp_path / "store"):
        for ending in ("csv", "jsonl", "parquet"):
            file = tmp_path / f"{ending}.{ending}"
            assert (
                main(["export", "--store", str(tmp_path / "store"), "values", "--run", run, "-o", str(file)])
                == 0
            )
            assert file.stat().st_size > 0
        board = [
            "export",
            "--store",
            str(tmp_path / "store"),
            "tensorboard",
            "--run",
            run,
            "-o",
            str(tmp_path / "tb"),
        ]
        assert main(board) == 0
        printed = capsys.readouterr()
        assert (printed.out + printed.err).replace("\n", "").isprintable()
    with florlog.open(tmp_path / "store") as log:
        assert log.sql("select count(*) as n from runs")["n"].tolist() == [2]


def test_a_plot_takes_no_name_for_a_formula(tmp_path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    name = "$\\frac\x1b"
    with florlog.run("formula", store=tmp_path / "store") as run:
        for i in run.loop("i", range(3)):
            run.log(**{name: i})
    with florlog.open(tmp_path / "store") as log:
        axes = log.run().plot(name)
        axes.figure.savefig(tmp_path / "plot.png")  # which reads every text


def test_importing_florlog_is_small_and_has_no_side_effect(tmp_path: Path) -> None:
    code = """
import os, random, signal, sys, threading
import torch, numpy
def world():
    return (os.getcwd(), dict(os.environ), sys.path[:], sys.argv[:], sys.excepthook, sys.gettrace(), sys.getprofile(),
            [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)], threading.enumerate(), os.listdir("."),
            random.getstate(), torch.get_rng_state().tolist(), str(numpy.random.get_state()), torch.get_num_threads(),
            torch.is_grad_enabled(), sys.meta_path[:], sys.stdout, sys.stderr)
before, modules = world(), set(sys.modules)
import florlog
assert not any('callgraph' in name for name in sys.modules)  # a training needs little of the analysis
import florlog.commands
assert world() == before
new = set(sys.modules) - modules
heavy = {'pandas', 'textual', 'pyarrow', 'duckdb', 'matplotlib', 'tensorboard', 'mlflow', 'rich', 'asyncio'}
assert not heavy & new, heavy & new
foreign = sorted(name for name in new if not name.startswith('florlog'))
assert len(foreign) < 60, foreign
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
