"""Training loops of other libraries, as people write them: recorded hands-free, killed, resumed, asked afterwards."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import florlog
from tests.end_to_end.harness import Nursery, environment, logged

NNX = """\
import jax
import jax.numpy as jnp
import optax
from flax import nnx


class Net(nnx.Module):
    def __init__(self, rngs):
        self.inner = nnx.Linear(8, 16, rngs=rngs)
        self.drop = nnx.Dropout(0.2, rngs=rngs)
        self.outer = nnx.Linear(16, 1, rngs=rngs)

    def __call__(self, x):
        return self.outer(self.drop(nnx.relu(self.inner(x))))


model = Net(nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)


@nnx.jit
def train_step(model, optimizer, x):
    loss, gradients = nnx.value_and_grad(lambda m: jnp.mean((m(x) - x.sum(1, keepdims=True)) ** 2))(model)
    optimizer.update(model, gradients)
    return loss


key = jax.random.key(1)
for epoch in range(6):
    for step in range(5):
        key, part = jax.random.split(key)
        loss = train_step(model, optimizer, jax.random.normal(part, (16, 8)))
        # ADD print("weight", float(jnp.abs(model.inner.kernel[...]).sum()))
    print("epoch", epoch, "loss", float(loss), flush=True)
print("final", [float(jnp.sum(leaf)) for leaf in jax.tree_util.tree_leaves(nnx.state(model, nnx.Param))])
"""
MLX = """\
import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

mx.random.seed(0)
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))
optimizer = optim.Adam(1e-2)
step_of = nn.value_and_grad(model, lambda model, x: mx.mean((model(x) - x.sum(1, keepdims=True)) ** 2))
for epoch in range(6):
    for step in range(5):
        loss, gradients = step_of(model, mx.random.normal((16, 8)))
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state)
        # ADD print("weight", float(mx.abs(model.layers[0].weight).sum()))
    print("epoch", epoch, "loss", float(loss), flush=True)
print("final", [float(layer.weight.sum()) for layer in (model.layers[0], model.layers[3])])
"""
XGBOOST = """\
import hashlib

import numpy as np
import xgboost as xgb

x = np.random.default_rng(0).normal(size=(300, 6))
data = xgb.DMatrix(x, label=(x[:, 0] * x[:, 1] > 0).astype(int))
booster = xgb.Booster({"objective": "binary:logistic", "max_depth": 3, "nthread": 1SAMPLED}, [data])
for epoch in range(6):
    for step in range(5):
        booster.set_param({"eta": 0.3 / (1 + step)})
        booster.update(data, epoch * 5 + step)
        # ADD print("margin", float(booster.predict(data, output_margin=True).sum()))
    print("epoch", epoch, "trees", booster.num_boosted_rounds(), flush=True)
print("final", hashlib.sha256(bytes(booster.save_raw("ubj"))).hexdigest())
"""
SAMPLED = ', "subsample": 0.5, "seed": 3'
LIGHTGBM = """\
import hashlib

import lightgbm as lgb
import numpy as np

x = np.random.default_rng(0).normal(size=(300, 6))
data = lgb.Dataset(x, label=(x[:, 0] * x[:, 1] > 0).astype(int))
options = {"objective": "binary", "bagging_fraction": 0.5, "bagging_freq": 1, "num_threads": 1, "verbose": -1}


def told(env):
    print("round", env.iteration, "loss", env.evaluation_result_list[0][2])
    # ADD print("margin", float(env.model.predict(x, raw_score=True).sum()))


models = []
for epoch in range(6):
    models.append(lgb.train({**options, "seed": epoch}, data, 3, valid_sets=[data], callbacks=[told]))
    print("epoch", epoch, "trees", models[-1].num_trees(), flush=True)
print("final", hashlib.sha256("".join(model.model_to_string() for model in models).encode()).hexdigest())
"""


PACE = "flush=True)\n    time.sleep(0.1)\n"
"""Epochs take longer than images: otherwise few are taken."""


@dataclass(frozen=True)
class Case:
    """A script that needs a package; ``refused``: what a line at the start says has no images."""

    package: str
    text: str
    refused: str = ""


CASES = {
    "flax nnx": Case("flax", NNX),
    "mlx": Case("mlx.core", MLX),
    "xgboost": Case("xgboost", XGBOOST.replace("SAMPLED", "")),
    "xgboost that samples": Case(
        "xgboost", XGBOOST.replace("SAMPLED", SAMPLED), "booster, xgboost.core:Booster"
    ),
    "lightgbm": Case("lightgbm", LIGHTGBM),
}


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """One for all cases; JAX takes most of a short training's time to compile it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        patch.setenv("JAX_PLATFORMS", "cpu")
        made = Nursery(tmp_path_factory.mktemp("nursery"))
        yield made
        made.close()


def killed(store: Path, script: Path, last: str) -> None:
    """Record a script, and kill it when it has printed a line that begins so."""
    process = subprocess.Popen(
        [sys.executable, "-m", "florlog", "record", str(script)],
        env=environment(store), cwd=store.parent, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(last):
            process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("name", CASES)
def test_a_killed_training_ends_as_an_uninterrupted_one_and_answers_questions(
    name: str, nursery: Nursery, tmp_path: Path
) -> None:
    case = CASES[name]
    pytest.importorskip(case.package)
    script, output = tmp_path / "train.py", nursery.directory / "output.txt"
    whole, cut, truth = (tmp_path / kind for kind in ("whole", "cut", "truth"))
    text = "import time\n" + case.text.replace("flush=True)\n", PACE)
    script.write_text(text)
    nursery.run(whole, "florlog", "record", script)
    said = output.read_text()
    assert ("no images are taken while there is" in said) == bool(case.refused)
    assert case.refused in said

    killed(cut, script, "epoch 3")
    nursery.run(cut, "florlog", "resume", script)
    assert "the run differs" not in output.read_text()
    assert logged(cut) == logged(whole)
    assert logged(whole, "final")

    script.write_text(text.replace("# ADD ", ""))
    nursery.run(cut, "florlog", "replay", script, "--where", "epoch == 4")
    assert ("restore the start of epoch=0" in output.read_text()) == bool(case.refused)
    nursery.run(truth, "florlog", "record", script)
    asked = "margin" if "margin" in text else "weight"
    found, every = answers(cut, asked), answers(truth, asked)
    assert [value for value, _ in found] == [value for value, _ in every] != []
    assert {trust for _, trust in found} == {"PROVEN"}


def answers(store: Path, name: str) -> list[tuple[float, str]]:
    """The values of a name in the epoch that is asked for, and how far each can be trusted."""
    with florlog.open(store) as log:
        return [
            (v.value, v.trust) for v in log.run().logged() if v.name == name and v.path[0] == ("epoch", 4)
        ]
