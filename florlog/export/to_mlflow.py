"""A run's parameters and numbers as an MLflow run."""

from __future__ import annotations

from collections import Counter

from florlog.program.extras import need
from florlog.reading.columns import RECORDED
from florlog.reading.reader import RunView
from florlog.reading.render import brief, fits_float

_METRICS_PER_BATCH = 500


def write_mlflow(view: RunView, uri: str | None, experiment: str) -> str:
    """Make an MLflow run; its id.  ``uri``: MLflow's tracking URI, default its own.

    A metric's step counts the values of its name; a hindsight value's metric has its trust in its name.
    """
    mlflow = need("mlflow", "mlflow")
    entities = need("mlflow.entities", "mlflow")
    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    number = found.experiment_id if found else client.create_experiment(experiment)
    summary = view.summary()
    made = client.create_run(
        number, run_name=view.id, tags={"florlog.run": view.id, "florlog.script": summary["script"]}
    )
    run_id: str = made.info.run_id
    for key, value in view.params.items():
        client.log_param(run_id, key, value if isinstance(value, int | float | str) else brief(value, 400))
    steps: Counter[str] = Counter()
    batch = []
    for value in view.logged():
        if fits_float(value.value):
            key = value.name if value.trust == RECORDED else f"{value.name}.{value.trust}"
            batch.append(entities.Metric(key, float(value.value), 0, steps[key]))
            steps[key] += 1
            if len(batch) == _METRICS_PER_BATCH:
                client.log_batch(run_id, metrics=batch)
                batch = []
    client.log_batch(run_id, metrics=batch)
    client.set_terminated(run_id, "FINISHED" if summary["status"] == "complete" else "FAILED")
    return run_id
