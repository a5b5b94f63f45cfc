"""Real runs whose loops go over what they change: killed and resumed, and asked afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

import florlog

from .harness import Nursery, logged, python, replay, truth
from .programs import write

pytestmark = pytest.mark.drawn_in_file(3)

START = """
import itertools, os, pathlib, random, signal, sys, time
import torch
import florlog

mark, at = pathlib.Path(sys.argv[1]), int(sys.argv[2])
passed = 0

def end_here():
    global passed
    passed += 1
    if passed == at and not mark.exists():
        time.sleep(0.2)
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
"""

WORK_LIST = """
def main():
    torch.manual_seed(1)
    w, todo = torch.zeros(3), [0, 1, 2, 3]
    with florlog.run("list", overhead=float("inf")) as run:
        run.track(w=w)
        for x in run.loop("item", todo):
            time.sleep(0.05)
            if len(todo) < 10:
                todo.append(len(todo))
            if x == 6 and 50 not in todo:
                todo.insert(2, 50)
            w += torch.randn(3)
            run.log(x=x, loss=w.sum().item())
            end_here()
        run.log(end=w.sum().item(), items=len(todo))
main()
"""

NESTED = """
class Job:
    def __init__(self):
        self.todo = [(0, "a"), (1, "b")]

    def run(self):
        w, todo = torch.zeros(3), self.todo
        with florlog.run("list", overhead=float("inf")) as run:
            run.track(w=w)
            for number, (x, name) in enumerate(run.loop("outer", todo)):
                for y, _ in run.loop("inner", self.todo):
                    time.sleep(0.03)
                    if len(todo) < 5:
                        todo.append((len(todo), "c"))
                    elif y == 2:
                        todo[3] = (30, "d")
                    w += x + y + torch.rand(3)
                    run.log(y=y, x=x, number=number, sum=w.sum().item())
                    end_here()
            run.log(todo=[x for x, _ in todo])
Job().run()
"""

REBOUND = """
def main():
    w, todo = torch.zeros(3), [0, 1, 2, 3, 4]
    with florlog.run("list", overhead=float("inf")) as run:
        run.track(w=w)
        for x in run.loop("item", todo):
            time.sleep(0.05)
            todo = [*todo, x + 10]
            todo[1] = 7
            w += torch.rand(3) * x
            run.log(x=x, sum=w.sum().item(), todo=list(todo))
            end_here()
main()
"""

SHUFFLED = """
class Order:
    def __init__(self):
        self.g = random.Random(3)
    def __len__(self):
        return 6
    def __iter__(self):
        order = list(range(6))
        self.g.shuffle(order)
        return iter(order)

def main():
    w, order = torch.zeros(6), Order()
    with florlog.run("list", overhead=float("inf")) as run:
        run.track(w=w)
        for epoch in run.loop("epoch", range(3)):
            for i in run.loop("step", order):
                # ITEM
                time.sleep(0.03)
                w[i] += i + 1
                run.log(i=i)
                end_here()
            run.log(loss=w.sum().item())
main()
"""

OWN_WORK = """
class Work:
    def __init__(self):
        self.todo = [3, 2, 1]
    def __iter__(self):
        while self.todo:
            yield self.todo.pop()

def walk(todo):
    for x in todo:
        yield x

def main():
    w, work, todo = torch.zeros(3), Work(), [1, 2]
    with florlog.run("list", overhead=float("inf")) as run:
        run.track(w=w)
        for x in run.loop("work", work):
            time.sleep(0.05)
            if x < 9:
                work.todo += [x + 3] * (x % 2 + 1)
            w += torch.rand(3) * x
            run.log(x=x, sum=w.sum().item())
            end_here()
        for x in run.loop("walk", walk(todo)):
            time.sleep(0.05)
            if x < 6:
                todo.append(x + 2)
            w += torch.rand(3) * x
            run.log(x=x, sum=w.sum().item())
            end_here()
main()
"""

TENSOR = """
X = torch.arange(24.0).reshape(12, 2)
def main():
    torch.manual_seed(1)
    net = torch.nn.Linear(2, 1)
    opt = torch.optim.SGD(net.parameters(), lr=1e-4)
    loader = torch.utils.data.DataLoader(X, batch_size=2, shuffle=True)
    with florlog.run("list", overhead=float("inf")) as run:
        run.track(net=net, opt=opt)
        for epoch in run.loop("epoch", range(2)):
            for x in run.loop("step", loader):
                opt.zero_grad()
                loss = net(x).pow(2).mean()
                loss.backward()
                opt.step()
                # ITEM
                time.sleep(0.05)
                run.log(loss=loss.item())
                end_here()
main()
"""

SCRIPTS = {
    "work-list": WORK_LIST,
    "nested": NESTED,
    "rebound": REBOUND,
    "shuffled": SHUFFLED,
    "own-work": OWN_WORK,
    "tensor": TENSOR,
}


@pytest.mark.drawn(5)
@pytest.mark.crash
@pytest.mark.parametrize("at", [3, 9])
@pytest.mark.parametrize("kind", SCRIPTS)
def test_a_loop_over_what_it_changes_is_killed_and_resumed(
    nursery: Nursery, tmp_path: Path, kind: str, at: int
) -> None:
    if kind == "rebound":
        at = at // 2 + 1
    script = write(tmp_path / "train.py", START + SCRIPTS[kind])
    nursery.run(tmp_path / "whole", script, tmp_path / "none", "0")
    expected = logged(tmp_path / "whole")
    killed, _ = nursery.run(tmp_path / "store", script, tmp_path / "mark", str(at))
    assert killed
    if kind != "own-work":
        with florlog.open(tmp_path / "store") as log:
            assert any(index > 0 for loop in log.run().tree().loops() for index in loop.images)
    nursery.run(tmp_path / "store", "florlog", "resume", script, tmp_path / "mark", str(at))
    assert logged(tmp_path / "store") == expected


@pytest.mark.drawn(1)
@pytest.mark.parametrize(
    ("kind", "added"), [("shuffled", "run.log(item=i)"), ("tensor", "run.log(item=x.sum().item())")]
)
def test_a_replay_that_restores_again_and_again_within_a_pass_gets_the_very_items(
    tmp_path: Path, kind: str, added: str
) -> None:
    text = START + SCRIPTS[kind]
    script = write(tmp_path / "train.py", text)
    python(tmp_path / "store", script, tmp_path / "none", "0")
    write(script, text.replace("# ITEM", added))
    full = truth(script, tmp_path, str(tmp_path / "none"), "0")
    for where in ("step == 2 or step == 4", "epoch == 1", "step == 5"):
        for value in replay(tmp_path / "store", script, "--where", where)["values"]:
            path = tuple((name, index) for name, index in value["path"].items())
            assert full["item", path] == [value["value"]]
            assert value["trust"] == "PROVEN"


def test_what_keeps_images_out_of_a_loop_is_said_by_name_and_line(tmp_path: Path) -> None:
    script = write(tmp_path / "train.py", START + OWN_WORK)
    done = python(tmp_path / "store", script, tmp_path / "none", "0")
    lines = script.read_text().splitlines()
    for name, what in (("work", "a Work"), ("walk", "generator walk")):
        line = next(number for number, text in enumerate(lines, 1) if f'loop("{name}"' in text)
        said = f"loop '{name}' (train.py:{line}): the loop's body changes what the items of {what} depend on"
        assert done.stderr.count(said) == 1
    with florlog.open(tmp_path / "store") as log:
        for loop in log.run().tree().loops():
            assert all(index in (0, loop.count) for index in loop.images)
