"""JAX's arrays are captured and restored by value; they are never written into."""

from __future__ import annotations

from pathlib import Path

import pytest

from florlog.errors import ImageError
from florlog.state.heap.compare import difference

from .kinds import Kind
from .test_heap import Program

pytest.importorskip("jax", reason="jax is not installed")

SETUP = """
import jax, jax.numpy as jnp, numpy as np
grow = jax.jit(lambda x, k: x + jax.random.normal(k, x.shape))
use = jax.jit(lambda x: x + 1, donate_argnums=0)
key, typed = jax.random.PRNGKey(0), jax.random.key(0)
w = {
    "a": jnp.arange(6.0).reshape(2, 3), "half": jnp.ones(3, jnp.bfloat16), "empty": jnp.zeros((0, 4)),
    "packed": jnp.arange(5, dtype="int4"), "weak": jnp.asarray(1.0), "here": jax.device_put(1.5, jax.devices()[0]),
}
big = jnp.zeros(1 << 19)
first = w["a"]
seen = None
given = jnp.arange(3.0)
best = tree = None
"""
STEP = """
key, part = jax.random.split(key)
typed = jax.random.split(typed)[0]
w = {name: x + 1 for name, x in w.items()} | {"a": grow(w["a"], part)}
big = big.at[i].add(1)
seen = np.asarray(w["a"])
if i == 2:
    best = {"w": dict(w), "sum": jnp.sum(w["a"])}
    tree = jax.tree_util.tree_structure(best)
    use(given)
"""
SEEN = """(
    {name: (np.array(x).tolist(), str(x.dtype), x.weak_type, x.committed) for name, x in w.items()},
    np.array(grow(w["a"], key)).tolist(), jax.random.normal(typed).item(), np.array(big[:8]).tolist(),
    best and (best["w"]["a"] is w["a"], best["sum"].item(), str(tree)), given.is_deleted(), seen.tolist(),
    first is w["a"],
)"""
KIND = Kind("jax", SETUP, STEP, SEEN.replace("\n", " "))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose modules are the program's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_program_with_jax_goes_on_from_a_captured_heap(at: int, folder: Path) -> None:
    whole = Program(folder, KIND, "whole")
    expected = [whole.step(i) for i in range(6)]
    recorded = Program(folder, KIND, "state_of_jax")
    for i in range(at + 1):
        recorded.step(i)
    graph = recorded.captured()
    assert not graph.missing

    again = Program(folder, KIND, "state_of_jax")
    again.restore(graph)
    assert not difference(graph, again.captured())
    assert [again.step(i) for i in range(at + 1, 6)] == expected[at + 1 :]


def test_going_back_writes_into_no_array(folder: Path) -> None:
    program = Program(folder, KIND, "back_with_jax")
    program.step(0)
    graph = program.captured()
    later = [program.step(i) for i in range(1, 4)]
    names = vars(program.module)
    held, was = names["w"], {name: x.tolist() for name, x in names["w"].items()}
    live = dict(held)

    program.restore(graph)
    assert {name: x.tolist() for name, x in live.items()} == was
    assert [program.step(i) for i in range(1, 4)] == later


def test_capturing_keeps_no_array_from_being_donated(folder: Path) -> None:
    program = Program(folder, KIND, "donated_after_capture")
    program.captured()
    program.step(2)
    assert vars(program.module)["given"].is_deleted()


def test_a_function_that_was_compiled_in_mid_run_is_named(folder: Path) -> None:
    setup = "import jax\nstep = None"
    kind = Kind("late", setup, "step = jax.jit(lambda x: x * 2) if i == 0 else step", "step(2.0).item()")
    recorded = Program(folder, kind, "compiled_late")
    recorded.step(0)
    graph = recorded.captured()
    with pytest.raises(ImageError, match="step, a compiled function"):
        Program(folder, kind, "compiled_late").restore(graph)
