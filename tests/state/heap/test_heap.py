"""A captured heap, restored into a program that was set up again, goes on as the program did."""

from __future__ import annotations

import importlib
import itertools
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from florlog_wal import decode_value, encode_value
from torch.utils.hooks import RemovableHandle

from florlog.errors import ImageError
from florlog.state.heap.capture import capture
from florlog.state.heap.compare import difference
from florlog.state.heap.graph import Graph
from florlog.state.heap.image import flattened, graph_of
from florlog.state.heap.kinds import KINDS as KIND_NAMES
from florlog.state.heap.restore import restore
from florlog.state.tree import unflatten

from .kinds import KINDS, PRELUDE, Kind

STEPS = 5
_numbers = itertools.count()


class Program:
    """One execution of the module of some kinds of state."""

    def __init__(self, folder: Path, kind: Kind, name: str) -> None:
        self.file = folder / f"{name}.py"
        self.file.write_text(f"{PRELUDE}\n{kind.setup}\n")
        sys.modules.pop(name, None)
        importlib.invalidate_caches()
        self.module = importlib.import_module(name)
        self.codes = [(name, compile(self.file.read_text(), str(self.file), "exec"))]
        self._step = compile(kind.step, "<step>", "exec")
        self._seen = compile(kind.seen, "<seen>", "eval")

    def step(self, i: int) -> str:
        """Take step ``i``; what it observes, as text."""
        names = vars(self.module)
        names["i"] = i
        exec(self._step, names)
        del names["i"]
        return repr(eval(self._seen, names))

    def roots(self) -> dict[str, Any]:
        """The names of the program."""
        return {name: value for name, value in vars(self.module).items() if not name.startswith("__")}

    def captured(self) -> Graph:
        """The graph now, as an image gives it back."""
        skeleton, tensors = flattened(capture({"m": self.roots()}), "/heap")
        held = {key: tensor.clone() for key, tensor in tensors}
        return graph_of(unflatten(decode_value(encode_value(skeleton)), held.__getitem__))

    def restore(self, graph: Graph) -> None:
        """Put a graph back, and remove the names that it lacks."""
        found = restore(graph, {"m": self.roots()}, self.codes)["m"]
        names = vars(self.module)
        for gone in self.roots().keys() - found.keys():
            del names[gone]
        names.update(found)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose modules are the program's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_program_goes_on_from_a_captured_heap(kind: Kind, folder: Path) -> None:
    name = f"kind_{next(_numbers)}"
    first = Program(folder, kind, name)
    first.step(0)
    first.step(1)
    graph = first.captured()
    assert graph.missing == {}
    assert difference(graph, first.captured()) == ""
    truth = [first.step(i) for i in range(2, STEPS)]
    for others in (0, 1, 4):  # steps that the restored program has taken before
        second = Program(folder, kind, name)
        for i in range(others):
            second.step(i)
        second.restore(graph)
        assert difference(graph, second.captured()) == ""
        assert [second.step(i) for i in range(2, STEPS)] == truth


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_step_that_changes_what_is_seen_makes_a_difference(kind: Kind, folder: Path) -> None:
    """The twin of the test above: a state that is another one is not taken for the same."""
    program = Program(folder, kind, f"kind_{next(_numbers)}")
    program.step(0)
    before, graph = program.step(1), program.captured()
    if program.step(2) != before:
        assert difference(graph, program.captured()) != ""


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        (Kind("memory view", "b = bytearray(4)\nv = memoryview(b)", "pass", "0"), "v"),
        (Kind("pairwise", "p = itertools.pairwise([1, 2, 3])", "next(p)", "0"), "p"),
        (Kind("record of an array", "a = np.zeros(2, dtype=[('n', 'i4')])\nr = a[0]", "pass", "0"), "r"),
        (Kind("socket", "import socket\ns = [socket.socket()]", "pass", "0"), ""),
        (Kind("cache of lists", "@functools.lru_cache\ndef f(x): return [x]", "f(i)", "0"), "f"),
    ],
    ids=lambda value: value.name if isinstance(value, Kind) else "",
)
def test_what_cannot_be_captured_is_named(kind: Kind, place: str, folder: Path) -> None:
    program = Program(folder, kind, f"kind_{next(_numbers)}")
    program.step(0)
    assert list(program.captured().missing) == ([place] if place else [])


def test_of_many_things_that_cannot_be_captured_some_are_named(folder: Path) -> None:
    kind = Kind("sockets", "vs = [memoryview(b'x') for _ in range(30_000)]", "pass", "0")
    program = Program(folder, kind, f"kind_{next(_numbers)}")
    assert list(program.captured().missing) == [f"vs[{n}]" for n in range(20)]


def test_nothing_is_changed_where_the_state_cannot_be_put_back(folder: Path) -> None:
    kind = Kind(
        "file", "import json\nxs = [1]\nf = None", "xs.append(i); f = open(__file__) if i == 1 else f", "0"
    )
    name = f"kind_{next(_numbers)}"
    first = Program(folder, kind, name)
    first.step(0)
    first.step(1)
    graph, second = first.captured(), Program(folder, kind, name)
    with pytest.raises(ImageError, match=r"^f, an open file"):
        second.restore(graph)
    assert vars(second.module)["xs"] == [1]
    first.module.f.close()


def test_the_specification_names_every_kind_of_node() -> None:
    text = (Path(__file__).parents[3] / "specs" / "state.md").read_text()
    table = text.partition("## Nodes")[2].partition("## Regions")[0]
    named = set(
        re.findall(r"`([a-z ]+)`", "".join(line.split("|")[1] for line in table.splitlines() if "|" in line))
    )
    assert KIND_NAMES.keys() - {"rest"} <= named
    assert named <= KIND_NAMES.keys()


def test_a_hook_that_is_registered_after_a_restore_replaces_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = Kind("hooks", "m = nn.Linear(2, 2)\ndef hook(*a): pass", "m.register_forward_hook(hook)", "0")
    name = f"kind_{next(_numbers)}"
    first = Program(folder, kind, name)
    first.step(0)
    graph, number = first.captured(), RemovableHandle.next_id
    monkeypatch.setattr(RemovableHandle, "next_id", number - 1)  # as in a process that has registered none
    second = Program(folder, kind, name)
    second.restore(graph)
    second.step(1)
    assert len(vars(second.module)["m"]._forward_hooks) == 2


def test_a_mapping_is_filled_by_what_its_keys_are_afterwards(folder: Path) -> None:
    setup = """class K:
    def __init__(self): self.n = 0
    def __hash__(self): return hash(self.n)
    def __eq__(self, other): return self.n == other.n
k = K()"""
    kind = Kind("hash by value", setup, "k.n = 5; d = {k: 1}; s = {k}", "d[k]")
    name = f"kind_{next(_numbers)}"
    first = Program(folder, kind, name)
    first.step(0)
    second = Program(folder, kind, name)
    second.restore(first.captured())
    names = vars(second.module)
    assert names["d"][names["k"]] == 1
    assert names["k"] in names["s"]
