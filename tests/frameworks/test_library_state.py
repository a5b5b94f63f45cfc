"""Other libraries' models, optimizers and boosters are captured exactly, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from florlog.errors import ImageError
from florlog.state.heap.compare import difference
from florlog.state.random_generators import Randomness
from tests.state.heap.kinds import Kind
from tests.state.heap.test_heap import Program

STEPS = 5
JAX = """
import jax, jax.numpy as jnp, optax
x = jnp.linspace(-1, 1, 24).reshape(6, 4)
def error(out): return jnp.mean((out - x.sum(1, keepdims=True)) ** 2)
"""
BITS = "[np.asarray(leaf).tobytes().hex() for leaf in jax.tree_util.tree_leaves({})]"

LINEN = Kind(
    "flax",
    f"""{JAX}
import flax.linen as nn
from flax.training import train_state
class Net(nn.Module):
    width: int
    @nn.compact
    def __call__(self, x): return nn.Dense(1)(nn.tanh(nn.Dense(self.width)(x)))
net = Net(5)
variables = net.init(jax.random.PRNGKey(0), x)
state = train_state.TrainState.create(
    apply_fn=net.apply, params=variables, tx=optax.adamw(optax.cosine_decay_schedule(1e-2, 20))
)
@jax.jit
def train(state): return state.apply_gradients(grads=jax.grad(lambda w: error(net.apply(w, x)))(state.params))
""",
    "state = train(state)",
    BITS.format("state"),
)
NNX = Kind(
    "flax.nnx",
    f"""{JAX}
from flax import nnx
class Net(nnx.Module):
    def __init__(self, rngs):
        self.inner = nnx.Linear(4, 5, rngs=rngs)
        self.norm = nnx.BatchNorm(5, rngs=rngs)
        self.drop = nnx.Dropout(0.3, rngs=rngs)
        self.outer = nnx.Linear(5, 1, rngs=rngs)
    def __call__(self, x): return self.outer(self.drop(self.norm(nnx.relu(self.inner(x)))))
model = Net(nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
total = nnx.metrics.Average("loss")
@nnx.jit
def train(model, optimizer, total):
    loss, gradients = nnx.value_and_grad(lambda model: error(model(x)))(model)
    optimizer.update(model, gradients)
    total.update(loss=loss)
""",
    "train(model, optimizer, total)",
    "[np.asarray(jax.random.key_data(v) if jax.dtypes.issubdtype(v.dtype, jax.dtypes.prng_key) else v).tobytes().hex()"
    " for v in jax.tree_util.tree_leaves(nnx.state((model, optimizer, total)))]",
)
EQUINOX = Kind(
    "equinox",
    f"""{JAX}
import equinox as eqx
class Net(eqx.Module):
    inner: eqx.nn.Linear
    drop: eqx.nn.Dropout
    outer: eqx.nn.Linear
    def __init__(self, key):
        self.inner, self.outer = eqx.nn.Linear(4, 5, key=key), eqx.nn.Linear(5, 1, key=key)
        self.drop = eqx.nn.Dropout(0.3)
    def __call__(self, x, key): return self.outer(self.drop(jax.nn.relu(self.inner(x)), key=key))
key = jax.random.PRNGKey(0)
model = Net(key)
rule = optax.adam(1e-2)
moments = rule.init(eqx.filter(model, eqx.is_array))
@eqx.filter_jit
def train(model, moments, key):
    keys = jax.random.split(key, len(x))
    gradients = eqx.filter_grad(lambda model: error(jax.vmap(model)(x, keys)))(model)
    updates, moments = rule.update(gradients, moments)
    return eqx.apply_updates(model, updates), moments
""",
    "key, part = jax.random.split(key); model, moments = train(model, moments, part)",
    BITS.format("eqx.filter((model, moments), eqx.is_array)"),
)
MLX = Kind(
    "mlx.core",
    """
import mlx.core as mx, mlx.nn, mlx.optimizers
from mlx.utils import tree_flatten
mx.random.seed(0)
x = mx.arange(24).reshape(6, 4) / 24
class Net(mlx.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = mlx.nn.Linear(4, 5), mlx.nn.Linear(5, 1)
    def __call__(self, x): return self.outer(mx.tanh(self.inner(x)))
model, optimizer = Net(), mlx.optimizers.Adam(1e-2)
half = mx.ones(3, mx.bfloat16)
step = mlx.nn.value_and_grad(model, lambda model, x: mx.mean((model(x) - x.sum(1, keepdims=True)) ** 2))
""",
    """
loss, gradients = step(model, x)
optimizer.update(model, gradients)
half += loss.astype(mx.bfloat16)
""",
    "[(name, str(v.dtype), v.astype(mx.float32).tolist()) for name, v in"
    " tree_flatten([model.parameters(), optimizer.state, half])]",
)
XGBOOST = Kind(
    "xgboost",
    """
import xgboost as xgb
random_x = np.random.default_rng(0).normal(size=(300, 6))
y = (random_x[:, 0] * random_x[:, 1] > 0).astype(int)
data = xgb.DMatrix(random_x, label=y)
booster = xgb.Booster({"objective": "binary:logistic", "max_depth": 3, "nthread": 1}, [data])
""",
    'booster.set_param({"eta": 0.3 / (1 + i % 3)}); booster.update(data, i); booster.set_attr(step=str(i))',
    "(bytes(booster.save_raw('ubj')).hex(), booster.predict(data).tobytes().hex())",
)
LIGHTGBM = Kind(
    "lightgbm",
    """
import lightgbm as lgb
random_x = np.random.default_rng(0).normal(size=(300, 6))
y = (random_x[:, 0] * random_x[:, 1] > 0).astype(int)
data = lgb.Dataset(random_x, label=y)
best = None
options = {"objective": "binary", "verbose": -1, "num_threads": 1, "deterministic": True}
""",
    "best = lgb.train(options | {'bagging_fraction': 0.5, 'bagging_freq': 1, 'seed': i}, data, 3) if i % 2 else best",
    "best and (best.model_to_string(), best.predict(random_x).tobytes().hex())",
)
SKLEARN = Kind(
    "sklearn",
    """
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import IncrementalPCA
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
random_x = np.random.default_rng(0).normal(size=(200, 6))
y = (random_x[:, 0] * random_x[:, 1] > 0).astype(int)
shared = np.random.RandomState(5)
scaler, pca, clusters = StandardScaler(), IncrementalPCA(3), MiniBatchKMeans(4, random_state=3, n_init=1)
estimators = [
    SGDClassifier(random_state=1), SGDClassifier(random_state=shared, average=True), GaussianNB(),
    MLPClassifier((8,), random_state=2),
]
""",
    """
part = random_x[i * 40 : i * 40 + 40]
z = scaler.partial_fit(part).transform(part)
for estimator in estimators:
    estimator.partial_fit(z, y[i * 40 : i * 40 + 40], classes=[0, 1])
pca.partial_fit(z)
clusters.partial_fit(z)
""",
    "[(e.coef_ if hasattr(e, 'coef_') else e.theta_ if hasattr(e, 'theta_') else e.coefs_[0]).tobytes().hex()"
    " for e in estimators], clusters.cluster_centers_.tobytes().hex(), pca.components_.tobytes().hex(), shared.rand()",
)
KINDS = [LINEN, NNX, EQUINOX, MLX, XGBOOST, LIGHTGBM, SKLEARN]
PARTS = [
    (LINEN, "state"), (NNX, "model"), (NNX, "optimizer"), (NNX, "total"), (EQUINOX, "moments"), (EQUINOX, "key"),
    (MLX, "optimizer"), (MLX, "half"), (XGBOOST, "booster"), (LIGHTGBM, "best"), (SKLEARN, "estimators"),
    (SKLEARN, "shared"), (SKLEARN, "clusters"),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose modules are the program's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_training_goes_on_bit_for_bit_and_notices_each_part_that_is_left_out(
    kind: Kind, folder: Path
) -> None:
    pytest.importorskip(kind.name)
    recorded = Program(folder, kind, "recorded")
    for i in range(2):
        recorded.step(i)
    graph = recorded.captured()
    assert not graph.missing
    assert not difference(graph, recorded.captured())
    expected = [recorded.step(i) for i in range(2, STEPS)]

    again = Program(folder, kind, "recorded")
    again.step(0)
    again.restore(graph)
    assert not difference(graph, again.captured())
    assert [again.step(i) for i in range(2, STEPS)] == expected

    for part in [name for of, name in PARTS if of is kind]:
        lacking, fresh = Program(folder, kind, "recorded"), Program(folder, kind, "recorded")
        begun = vars(lacking.module)[part]
        lacking.restore(graph)
        if vars(lacking.module)[part] is begun:  # it was filled in place
            begun = vars(fresh.module)[part]
        vars(lacking.module)[part] = begun
        assert lacking.step(2) != expected[0], part


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"subsample": 0.5}, "draws samples (subsample=0.5"),
        ({"colsample_bynode": 0.5}, "draws samples (colsample_bynode=0.5"),
        ({"booster": "dart"}, "'dart' booster"),
        ({"booster": "gblinear"}, "'gblinear' booster"),
        ({"objective": "rank:pairwise"}, "'rank:pairwise'"),
    ],
)
def test_a_booster_that_would_go_on_differently_is_refused_by_name(
    options: dict[str, object], why: str, folder: Path
) -> None:
    pytest.importorskip("xgboost")
    setup = XGBOOST.setup.replace('"objective": "binary:logistic", "max_depth": 3', f"**{options}")
    program = Program(folder, Kind("drawing", setup, "booster.update(data, i)", "None"), "drawing")
    program.step(0)
    missing = program.captured().missing
    assert set(missing) == {"booster"}
    assert why in missing["booster"]


def test_a_booster_of_lightgbm_that_is_still_trained_is_refused_by_name(folder: Path) -> None:
    pytest.importorskip("lightgbm")
    setup = f"{LIGHTGBM.setup}\nbooster = lgb.Booster(options, data)"
    program = Program(folder, Kind("training", setup, "booster.update()", "None"), "training")
    program.step(0)
    assert "scores and random draws" in program.captured().missing["booster"]


def test_data_with_other_labels_is_refused(folder: Path) -> None:
    pytest.importorskip("xgboost")
    recorded = Program(folder, XGBOOST, "labels")
    recorded.step(0)
    graph = recorded.captured()
    again = Program(folder, XGBOOST, "labels")
    vars(again.module)["data"].set_label([1] * 300)
    with pytest.raises(ImageError, match="has other rows, labels or weights now"):
        again.restore(graph)


def test_what_points_into_memory_of_a_c_library_is_refused_by_name(folder: Path) -> None:
    setup = "import ctypes\nclass Handle: pass\nheld = Handle()\nheld.handle = None"
    program = Program(folder, Kind("pointer", setup, "held.handle = ctypes.c_void_p(i)", "None"), "pointing")
    program.step(0)
    assert not program.captured().missing  # it points nowhere
    program.step(1)
    assert "memory of a C library" in program.captured().missing["held.handle"]


def test_the_generator_of_mlx_is_put_back() -> None:
    mx = pytest.importorskip("mlx.core")
    randomness = Randomness()
    mx.random.normal((3,))
    tree = randomness.capture()
    drawn = mx.random.normal((3,)).tolist()
    assert mx.random.normal((3,)).tolist() != drawn
    randomness.restore(tree)
    assert mx.random.normal((3,)).tolist() == drawn
