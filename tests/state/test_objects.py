"""Training objects: restored from an image, they go on exactly as the originals would have."""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn

import florlog
from florlog.state.adapters import adapter
from florlog.state.random_generators import Randomness

from .memory import Memory, restore, saved, state_bits


class Net(nn.Module):
    """Tied weights, dropout, batch norm, a non-persistent buffer, an expanded one and extra state."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 4, bias=False)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(4, 4, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("mask", torch.ones(1, 4).expand(3, 4))
        self.seen = 0
        self.to(dtype)

    def get_extra_state(self) -> Any:
        return {"seen": self.seen}

    def set_extra_state(self, state: Any) -> None:
        self.seen = state["seen"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.seen += len(x)
        return self.head(self.drop(self.norm(self.embed(x))))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, dtype: torch.dtype) -> None:
    for _ in range(steps):

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = model(torch.randn(8, 4, dtype=dtype)).float().square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adam-foreach": lambda p: torch.optim.Adam(p, lr=0.01, foreach=True),
    "adamw-tensor-lr": lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.01)),
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "adadelta": lambda p: torch.optim.Adadelta(p),
    "adafactor": lambda p: torch.optim.Adafactor(p),
    "adamax": lambda p: torch.optim.Adamax(p),
    "asgd": lambda p: torch.optim.ASGD(p),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
    "nadam": lambda p: torch.optim.NAdam(p),
    "radam": lambda p: torch.optim.RAdam(p),
    "rmsprop": lambda p: torch.optim.RMSprop(p, momentum=0.5, centered=True),
    "rprop": lambda p: torch.optim.Rprop(p),
    "two-groups": lambda p: torch.optim.AdamW(
        [{"params": [q], "lr": 10.0 ** -(i + 1)} for i, q in enumerate(p)], weight_decay=0.1
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("fresh", [False, True], ids=["in-place", "into-a-fresh-one"])
def test_model_and_optimizer_go_on_exactly(name: str, fresh: bool) -> None:
    torch.manual_seed(1)
    model = Net()
    optimizer = OPTIMIZERS[name](model.parameters())
    train(model, optimizer, 3, torch.float32)
    at = saved(model), saved(optimizer)
    rng = torch.get_rng_state()
    train(model, optimizer, 3, torch.float32)
    expected = state_bits(model), state_bits(optimizer)
    if fresh:
        model = Net()
        optimizer = OPTIMIZERS[name](model.parameters())
    restore(model, at[0])
    restore(optimizer, at[1])
    assert model.head.weight is model.embed.weight
    torch.set_rng_state(rng)
    train(model, optimizer, 3, torch.float32)
    assert (state_bits(model), state_bits(optimizer)) == expected


@pytest.mark.parametrize("name", ["adam", "lbfgs"])
def test_state_of_another_dtype_than_its_parameter_is_not_cast(name: str) -> None:
    torch.manual_seed(1)
    model = nn.Linear(4, 4).bfloat16()
    optimizer = OPTIMIZERS[name](model.parameters())
    train(model, optimizer, 2, torch.bfloat16)
    for held in optimizer.state.values():
        for key, value in list(held.items()):
            if isinstance(value, torch.Tensor) and key != "step":
                held[key] = value.float() + torch.rand_like(value.float()) * 1e-6
            if isinstance(value, list):
                held[key] = [v.float() * 1.0001 if isinstance(v, torch.Tensor) else v for v in value]
    before = state_bits(optimizer)
    at = saved(optimizer)
    for held in optimizer.state.values():
        held.clear()
    restore(optimizer, at)
    assert state_bits(optimizer) == before


def test_an_optimizer_keeps_its_groups_and_the_tensor_of_its_rate() -> None:
    model = nn.Linear(2, 2)
    rate = torch.tensor(0.5)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    group, groups = optimizer.param_groups[0], optimizer.param_groups
    at = saved(optimizer)
    rate.fill_(0.25)
    restore(optimizer, at)
    assert optimizer.param_groups is groups
    assert optimizer.param_groups[0] is group
    assert group["lr"] is rate
    assert rate.item() == 0.5


class Ramp:
    def __init__(self) -> None:
        self.top = 2.0

    def __call__(self, epoch: int) -> float:
        return min(epoch, self.top)


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "lambda": lambda o: lrs.LambdaLR(o, lambda epoch: 0.9**epoch),
    "lambda-object": lambda o: lrs.LambdaLR(o, Ramp()),
    "multiplicative": lambda o: lrs.MultiplicativeLR(o, lambda epoch: 0.95),
    "step": lambda o: lrs.StepLR(o, 3),
    "multi-step": lambda o: lrs.MultiStepLR(o, [2, 4, 4, 6]),
    "constant": lambda o: lrs.ConstantLR(o, total_iters=4),
    "linear": lambda o: lrs.LinearLR(o, total_iters=7),
    "exponential": lambda o: lrs.ExponentialLR(o, 0.9),
    "polynomial": lambda o: lrs.PolynomialLR(o, 9, 2.0),
    "cosine": lambda o: lrs.CosineAnnealingLR(o, 10),
    "warm-restarts": lambda o: lrs.CosineAnnealingWarmRestarts(o, 3, 2),
    "cyclic": lambda o: lrs.CyclicLR(o, 0.01, 0.1, step_size_up=3),
    "cyclic-function": lambda o: lrs.CyclicLR(o, 0.01, 0.1, step_size_up=3, scale_fn=lambda x: 0.9**x),
    "one-cycle": lambda o: lrs.OneCycleLR(o, 0.1, total_steps=40),
    "sequential": lambda o: lrs.SequentialLR(
        o, [lrs.LinearLR(o, total_iters=3), lrs.LambdaLR(o, lambda e: 0.8**e)], [3]
    ),
    "chained": lambda o: lrs.ChainedScheduler([lrs.StepLR(o, 2), lrs.ExponentialLR(o, 0.9)]),
    "swa": lambda o: SWALR(o, swa_lr=0.01, anneal_epochs=5),
    "nested": lambda o: lrs.SequentialLR(
        o, [lrs.ChainedScheduler([lrs.LinearLR(o), SWALR(o, 0.1)]), lrs.CosineAnnealingLR(o, 9)], [4]
    ),
    "plateau": lambda o: lrs.ReduceLROnPlateau(o, patience=1, cooldown=1),
}


@pytest.mark.parametrize("tensor_rate", [False, True], ids=["float", "tensor"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_goes_on_exactly(name: str, tensor_rate: bool) -> None:
    def make() -> tuple[torch.optim.Optimizer, Any]:
        parameter = nn.Parameter(torch.ones(3))
        rate: Any = torch.tensor(0.1) if tensor_rate else 0.1
        optimizer = torch.optim.SGD([parameter], lr=rate, momentum=0.9)
        return optimizer, SCHEDULERS[name](optimizer)

    def advance(optimizer: torch.optim.Optimizer, scheduler: Any) -> list[float]:
        rates = []
        for number in range(5):
            optimizer.step()
            scheduler.step(*([1.0 + number % 3] if name == "plateau" else []))
            rates.append(float(optimizer.param_groups[0]["lr"]))
        return rates

    if tensor_rate and name in ("cyclic", "cyclic-function", "one-cycle"):
        pytest.skip("torch makes a float of a tensor rate here")
    optimizer, scheduler = make()
    advance(optimizer, scheduler)
    at = saved(optimizer), saved(scheduler)
    expected = advance(optimizer, scheduler), state_bits(scheduler)
    again_optimizer, again = make()
    restore(again_optimizer, at[0])
    restore(again, at[1])
    assert (advance(again_optimizer, again), state_bits(again)) == expected


def test_every_scheduler_of_torch_is_in_these_tests() -> None:
    known = {
        kind
        for kind in vars(lrs).values()
        if isinstance(kind, type) and issubclass(kind, lrs.LRScheduler) and not kind.__name__.startswith("_")
    }
    optimizers = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
    tested = {type(make(copy.deepcopy(optimizers))) for make in SCHEDULERS.values()}
    assert known - tested == {lrs.LRScheduler}


def test_averaged_models_and_the_scaler_are_exact() -> None:
    torch.manual_seed(2)
    model = nn.Linear(3, 3)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def advance() -> None:
        for _ in range(3):
            optimizer.zero_grad()
            scaler.scale(model(torch.randn(2, 3)).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
            ema.update_parameters(model)

    advance()
    objects = [model, ema, scaler, optimizer]
    at = [saved(target) for target in objects]
    rng = torch.get_rng_state()
    advance()
    expected = [state_bits(target) for target in objects]
    for target, state in zip(objects, at, strict=True):
        restore(target, state)
    torch.set_rng_state(rng)
    advance()
    assert [state_bits(target) for target in objects] == expected


class Mean(nn.Module):
    """A metric as torchmetrics makes them: its state is in attributes that ``state_dict`` leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self._defaults = {"total": torch.zeros(()), "seen": []}
        self.total, self.seen = torch.zeros(()), [torch.ones(1)]
        self._update_count, self._computed = 0, None

    def update(self, value: float) -> None:
        self.total = self.total + value
        self.seen.append(torch.tensor([value]))
        self._update_count += 1


def test_a_metric_keeps_what_it_has_seen() -> None:
    metric = nn.ModuleDict({"mean": Mean()})
    metric["mean"].update(2.5)
    state, before = saved(metric), state_bits(metric)
    metric["mean"].update(1.0)
    assert state_bits(metric) != before
    fresh = nn.ModuleDict({"mean": Mean()})
    for target in (metric, fresh):
        restore(target, state)
        assert state_bits(target) == before
        assert target["mean"].total == 2.5
        assert [held.item() for held in target["mean"].seen] == [1.0, 2.5]


def test_a_quantized_module_is_exact() -> None:
    def make() -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        quantized: nn.Module = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
        return quantized

    x, model, other = torch.randn(3, 4), make(), make()
    state, expected = saved(model), model(x)
    assert not torch.equal(other(x), expected)
    restore(other, state)
    assert torch.equal(other(x), expected)
    assert state_bits(other) == state_bits(model)


def test_a_module_brings_gradients_flags_and_which_parameters_are_frozen() -> None:
    model = Net()
    model(torch.randn(4, 4)).sum().backward()
    model.norm.eval()
    model.norm.weight.requires_grad_(False)
    at = saved(model)
    grad = model.embed.weight.grad.clone()
    model.zero_grad()
    model.norm.train()
    model.norm.weight.requires_grad_(True)
    model.calls += 5
    restore(model, at)
    assert torch.equal(model.embed.weight.grad, grad)
    assert not model.norm.training
    assert model.drop.training
    assert not model.norm.weight.requires_grad
    assert model.calls == 1
    assert model.mask.stride(0) == 0


def test_sparse_gradients_are_kept() -> None:
    table = nn.Embedding(10, 2, sparse=True)
    optimizer = torch.optim.SparseAdam(table.parameters())
    table(torch.tensor([1, 3, 3])).sum().backward()
    optimizer.step()
    before = state_bits(table), state_bits(optimizer)
    at = saved(table), saved(optimizer)
    table.zero_grad()
    optimizer.state.clear()
    restore(table, at[0])
    restore(optimizer, at[1])
    assert (state_bits(table), state_bits(optimizer)) == before


GENERATORS: dict[str, Callable[[], tuple[Any, Callable[[Any], Any]]]] = {
    "python": lambda: (random.Random(3), lambda r: [r.gauss(0, 1), r.random(), r.gauss(0, 1)]),
    "torch": lambda: (torch.Generator().manual_seed(3), lambda r: torch.randn(7, generator=r).tolist()),
    "numpy-legacy": lambda: (np.random.RandomState(3), lambda r: r.normal(size=3).tolist()),
    "numpy-legacy-pcg": lambda: (
        np.random.RandomState(np.random.PCG64(3)),
        lambda r: r.normal(size=3).tolist(),
    ),
    "bits": lambda: (np.random.PCG64(3), lambda r: r.random_raw(3).tolist()),
} | {
    kind.__name__: lambda kind=kind: (
        np.random.Generator(kind(3)),
        lambda r: [r.normal(size=3).tolist(), r.integers(9, size=3, dtype=np.int32).tolist()],
    )
    for kind in (
        np.random.MT19937,
        np.random.PCG64,
        np.random.PCG64DXSM,
        np.random.Philox,
        np.random.SFC64,
    )
}


@pytest.mark.parametrize("name", GENERATORS)
def test_a_random_generator_goes_on_exactly(name: str) -> None:
    generator, draw = GENERATORS[name]()
    draw(generator)
    at = saved(generator)
    expected = [draw(generator), draw(generator)]
    restore(generator, at)
    assert [draw(generator), draw(generator)] == expected


def test_the_global_generators_go_on_exactly() -> None:
    def draw() -> tuple[Any, ...]:
        return random.gauss(0, 1), float(np.random.normal()), torch.randn(2).tolist()

    draw()
    randomness = Randomness()
    at = Memory().image({"/rng": randomness.capture()}).tree("/rng")
    expected = [draw(), draw()]
    randomness.restore(at)
    assert [draw(), draw()] == expected


def test_a_generator_of_the_system_is_refused() -> None:
    with pytest.raises(florlog.TrackError, match=r"'dice' \(SystemRandom\)"):
        adapter("dice", random.SystemRandom())


def test_containers_are_restored_in_place_and_their_trained_tensors_too() -> None:
    weight = torch.randn(3, requires_grad=True)
    held: dict[str, Any] = {"weights": [weight], "seen": {1}, "window": deque([1, 2], 5), "best": [1.0]}
    inner = dict(held)
    at = saved(held)
    value = weight.detach().clone()
    with torch.no_grad():
        weight.zero_()
    held["window"].append(9)
    held["seen"].add(7)
    held["best"] = held["best"]
    held["more"] = 1
    restore(held, at)
    assert held.keys() == inner.keys()
    assert all(held[key] is inner[key] for key in inner)
    assert held["weights"][0] is weight
    assert torch.equal(weight, value)
    assert held["window"] == deque([1, 2], 5)
    assert held["seen"] == {1}


def test_a_list_of_views_never_writes_to_what_they_are_views_of() -> None:
    data = torch.arange(6.0)
    window = [data[0:2], data[2:4]]
    at = saved(window)
    window[:] = [data[2:4], data[4:6]]
    restore(window, at)
    assert data.tolist() == [0, 1, 2, 3, 4, 5]
    assert [t.tolist() for t in window] == [[0, 1], [2, 3]]


def test_an_immutable_value_that_changed_is_refused() -> None:
    at = saved((1, "a"))
    restore((1, "a"), at)
    with pytest.raises(florlog.ChangedError, match="'it' was"):
        restore((1, "b"), at)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.complex64, torch.bool], ids=str)
def test_a_tracked_tensor_is_restored_in_its_own_memory(dtype: torch.dtype) -> None:
    tensor = torch.ones(3, 4).to(dtype).t()
    alias = tensor[1:]
    at = saved(tensor)
    tensor.copy_(torch.zeros(4, 3))
    restore(tensor, at)
    assert alias.float().real.eq(1).all()


def test_a_tensor_that_grew_is_restored_to_its_size() -> None:
    tensor = torch.arange(3)
    at = saved(tensor)
    tensor.resize_(7).zero_()
    restore(tensor, at)
    assert tensor.tolist() == [0, 1, 2]


def test_an_expanded_tensor_is_restored_through_its_own_memory() -> None:
    tensor = torch.tensor([[1.0], [2.0]]).expand(2, 5)
    at = saved(tensor)
    tensor[:, 0].zero_()
    restore(tensor, at)
    assert tensor.sum() == 15


def test_loading_keeps_the_versions_of_a_modules_parts() -> None:
    seen = []

    class Versioned(nn.Linear):
        _version = 7

        def _load_from_state_dict(self, state: Any, prefix: str, metadata: Any, *rest: Any) -> None:
            seen.append(metadata.get("version"))
            super()._load_from_state_dict(state, prefix, metadata, *rest)

    model = Versioned(2, 2)
    restore(model, saved(model))
    assert seen == [7]


def test_an_object_whose_state_dict_fails_is_refused_by_name() -> None:
    class Broken:
        def state_dict(self) -> Any:
            raise ValueError("not now")

        def load_state_dict(self, state: Any) -> None:
            pass

    with pytest.raises(florlog.TrackError, match=r"'thing' \(Broken\).*not now"):
        adapter("thing", Broken())
