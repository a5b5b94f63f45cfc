"""A state in a file, read back by the tools that it is for."""

from __future__ import annotations

import json
from collections import deque
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

import florlog
from florlog.commands import main
from florlog.state.leaves import named_leaves

PLACE = ("--at", "epoch=1, step=2")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("state") / "store"
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3, dtype=torch.bfloat16))
    tied = torch.nn.Linear(3, 3)
    tied.weight = model[0].weight
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    more: dict[str, Any] = {
        "best": float("inf"),
        "names": ["a", None, True],
        "table": np.arange(6, dtype=np.uint16).reshape(2, 3),
        "turned": torch.arange(6).reshape(2, 3).T,
        "nothing": {},
        "empty": torch.zeros(0, 3),
        "recent": deque([1, 2]),
        "share": Fraction(1, 3),
    }
    with florlog.run("filed", store=path, overhead=float("inf")) as run:
        run.track(model=model, tied=tied, optimizer=optimizer, more=more)
        for _ in run.loop("epoch", range(2)):
            for _ in run.loop("step", range(3)):
                model[0](torch.randn(4, 3)).square().mean().backward()
                optimizer.step()
    return path


def written(store: Path, file: Path, *options: str) -> dict[str, Any]:
    """Write the file; the state's leaves by name, as the library gives them."""
    assert main(["export", "--store", str(store), "state", *PLACE, *options, "-o", str(file)]) == 0
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    with florlog.open(store) as log:
        state = log.state_at(epoch=1, step=2, at="end" if options else "start")
    return dict(named_leaves({**state, "/rng": state.generators}))


@pytest.mark.parametrize("options", [(), ("--end",)])
def test_safetensors_reads_every_tensor_and_the_metadata_the_rest(
    store: Path, tmp_path: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "state.safetensors"
    leaves = written(store, file, *options)
    assert "left out, as the format has nothing for them: more.recent, more.share" in capsys.readouterr().out
    with safe_open(file, "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        metadata = opened.metadata()
    values, about = json.loads(metadata["values"]), json.loads(metadata["florlog"])
    assert about.pop("left_out") == ["more.recent", "more.share"]
    with florlog.open(store) as log:
        at = "end" if options else "start"
        assert about == {
            "run": log.run().id, "path": {"epoch": 1, "step": 2}, "at": at, "trust": "RECORDED", "detail": "",
        }  # fmt: skip
    assert {"model.0.weight", "optimizer.state.0.exp_avg", "more.table", "/rng.torch"} <= tensors.keys()
    assert values["optimizer.param_groups.0.lr"] == 0.01
    assert values["more.best"] == float("inf")
    assert (values["more.names.1"], values["more.names.2"], values["more.nothing"]) == (None, True, {})
    assert tensors.keys() | values.keys() | {"more.recent", "more.share"} == leaves.keys()
    for name, tensor in tensors.items():
        expected = torch.as_tensor(leaves[name])
        assert tensor.dtype == expected.dtype
        assert tensor.shape == expected.shape
        assert torch.equal(tensor, expected)
    assert tensors["model.1.weight"].dtype == torch.bfloat16
    assert torch.equal(tensors["tied.weight"], tensors["model.0.weight"])


@pytest.mark.parametrize("ending", [".pt", ".pth"])
def test_torch_reads_the_state_with_weights_only_and_a_model_takes_it(
    store: Path, tmp_path: Path, ending: str
) -> None:
    leaves = written(store, tmp_path / f"state{ending}")
    state = torch.load(tmp_path / f"state{ending}", weights_only=True)
    found = dict(named_leaves(state))
    assert leaves.keys() - found.keys() == {"more.recent", "more.share"}
    for name, leaf in found.items():
        if isinstance(leaf, torch.Tensor):
            assert torch.equal(leaf, torch.as_tensor(leaves[name]))
        else:
            assert leaf == leaves[name]
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3, dtype=torch.bfloat16))
    optimizer = torch.optim.Adam(model.parameters())
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    assert optimizer.param_groups[0]["lr"] == 0.01


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--at", "epoch=1", "-o", "state.bin"], "cannot tell the format of state.bin"),
        (["--at", "epoch=9", "-o", "state.pt"], "has no iteration epoch=9"),
        (["--at", "epoch=1", "-o", "missing/state.pt"], "cannot write missing/state.pt"),
        (["--at", "epoch=1:3", "-o", "state.pt"], "write an iteration as 'epoch=3, step=17'"),
    ],
)
def test_what_cannot_be_written_is_wrong_use(
    store: Path,
    tmp_path: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["export", "--store", str(store), "state", *words])
    except SystemExit as leaving:
        code = int(str(leaving.code))
    assert code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
