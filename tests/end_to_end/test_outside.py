"""Added statements that read what is neither state nor data are never PROVEN, and those that do not stay PROVEN.

One recording and one replay answer for all of them: each is a log statement of its own in the same script.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from florlog_wal import Hindsight

import florlog

from .harness import environment
from .programs import write

PROGRAM = """
import copy, datetime, gc, json, os, random, resource, secrets, socket, statistics, subprocess, sys, tempfile
import threading, time, traceback, uuid
from pathlib import Path

import numpy as np
import psutil
import scipy.stats
import sklearn.metrics
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from tqdm import tqdm

import florlog

STARTED = time.time()
CHOSEN = open(__file__).readline()


class Timer:
    def __init__(self):
        self.began = time.perf_counter()
        self.laps = []
        self.rounds = 0

    def lap(self):
        self.laps.append(time.perf_counter() - self.began)
        self.rounds += 1


class Files(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return float(len(Path(__file__).read_text()))


class Plain:
    pass


def evaluate(model, data):
    model.eval()
    right = 0
    with torch.no_grad():
        for x, y in tqdm(data):
            right += (model(x).argmax(1) == y).sum().item()
    model.train()
    return right / len(data.dataset)


def timed(function, *arguments):
    began = time.time()
    result = function(*arguments)
    return result, time.time() - began


def main():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    data = TensorDataset(torch.rand(64, 8), torch.arange(64) % 3)
    loader, val = DataLoader(data, 16, shuffle=True), DataLoader(data, 32)
    words, rng, timer, plain = {"red", "green", "blue"}, np.random.default_rng(3), Timer(), Plain()
    with florlog.run("outside", overhead=float("inf")) as run:
        run.track(model=model, optimizer=optimizer)
        # HOOK
        for epoch in run.loop("epoch", range(2)):
            begun = time.time()
            for x, y in run.loop("step", loader):
                loss = nn.functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if time.time() - begun > 100:
                    begun = time.time()
                # INNER
            timer.lap()
            spent = time.time() - begun
            run.log(loss=loss)
            # ADD


main()
"""

NOISE = [
    "time.time()", "time.perf_counter_ns()", 'time.strftime("%H:%M")', "str(datetime.datetime.now())",
    "str(datetime.date.today())", "timed(evaluate, model, val)[1]",
    "os.urandom(3)", "uuid.uuid4().hex", "random.SystemRandom().random()", "random.Random().random()",
    "secrets.token_hex(3)", "np.random.default_rng().random()", "np.random.RandomState().rand()",
    "torch.initial_seed()",
    "torch.Generator().seed()",
    "os.getpid()", "socket.gethostname()", "threading.get_ident()", "psutil.cpu_percent()", "os.cpu_count()",
    "id(model)", "repr(plain)", "sys.getrefcount(model)", "gc.get_count()", "x.data_ptr()",
    'hash("s")', 'list({"a", "b"})', '",".join(words)', "[word for word in words]", "next(iter(words))", "str(words)",
    'os.environ["PATH"]', 'os.getenv("PATH")',
    "open(__file__).read()", "Path(__file__).read_text()", 'os.listdir("/")', "os.path.getmtime(__file__)",
    "np.fromfile(__file__, dtype=np.uint8)", "Path(__file__).stat().st_mtime", "sum(DataLoader(Files()))",
    "torch.cuda.memory_allocated()", "resource.getrusage(0).ru_maxrss",
    'subprocess.run(["true"]).returncode', "len(list(DataLoader(data, 16, num_workers=1)))",
    "STARTED", "time.time() - STARTED", "spent", "begun", "timer.began", "timer.laps[0]", "sum(timer.laps)",
]  # fmt: skip
QUIET = [
    "model(x).norm()", "sum(p.norm() for p in model.parameters())", "evaluate(model, val)", "loss.item()", "epoch",
    "copy.deepcopy(model)[0].weight.sum()", "torch.linalg.svdvals(model[0].weight.detach())", "torch.randn(3)",
    "sklearn.metrics.f1_score([0, 1, 1], [0, 1, 0])", "sklearn.metrics.roc_auc_score([0, 1, 1], [0.1, 0.7, 0.4])",
    "sklearn.metrics.confusion_matrix(y, model(x).argmax(1))", "np.percentile(model[0].weight.detach().numpy(), 50)",
    "scipy.stats.kurtosis([1.0, 2, 5])", "statistics.median([1, 2])", 'json.dumps({"a": 1})',
    "torch.autograd.grad(model(x).sum(), model[0].weight)[0].norm()", "timer.rounds",
    'torch.optim.Adam(copy.deepcopy(model).parameters()).param_groups[0]["lr"]',
    "np.random.default_rng(0).random()", "random.Random(1).random()", "random.random()", "len(words)", "sorted(words)",
    '"red" in words', "max(words)", "CHOSEN", "str(model)", "torch.linalg.eigh(torch.eye(3))[0]",
    "nn.utils.parameters_to_vector(model.parameters()).std()", "sum(x.mean() for x, _ in val)",
]  # fmt: skip
FLOWS = """
noted = time.time()
run.log(later=noted)
kept = {}
kept["t"] = uuid.uuid4().int % 7
run.log(held=kept["t"])
clean = model(x).norm()
run.log(clean=clean)
def now():
    return time.time()
run.log(called=now())
if clean > 0:
    when = time.time()
    run.log(inside=when)
run.log(mixed=clean + kept["t"], apart=clean * 2)
"""
EXPECTED = {
    "later": False, "held": False, "clean": True, "called": False, "inside": False, "mixed": False, "apart": False,
    "hooked": True, "hook_time": False, "inner": True, "inner_time": False,
}  # fmt: skip
HOOK = """
def look(optimizer, given, named):
    florlog.log(hooked=model[0].weight.detach().norm())
    florlog.log(hook_time=time.time())
optimizer.register_step_post_hook(look)
"""
INNER = """
run.log(inner=model[0].weight.grad.norm())
run.log(inner_time=time.time())
"""


def command(store: Path, *arguments: str | Path, **variables: str) -> str:
    """What a command prints, in a process whose text has hashes of its own."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**environment(store), "PYTHONHASHSEED": "random", **variables},
        cwd=store.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def indented(code: str, columns: int) -> str:
    """Code as it stands in the program."""
    return code.strip().replace("\n", "\n" + " " * columns)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[tuple[str, str]]]:
    """Trust and detail of the values of each name; the expressions are named n0, n1, ... and q0, q1, ..."""
    directory = tmp_path_factory.mktemp("outside")
    script, store = write(directory / "train.py", PROGRAM), directory / "store"
    command(store, script)
    logs = [f"run.log(n{i}={code})" for i, code in enumerate(NOISE)]
    logs += [f"run.log(q{i}={code})" for i, code in enumerate(QUIET)]
    text = PROGRAM.replace("# ADD", indented("\n".join(logs) + FLOWS, 12))
    text = text.replace("# HOOK", indented(HOOK, 8)).replace("# INNER", indented(INNER, 16))
    write(script, text)
    answer = json.loads(command(store, "-m", "florlog", "replay", script, "--format", "json"))
    assert {value["trust"] for value in answer["values"]} <= {"PROVEN", "CONSISTENT"}
    found: dict[str, set[tuple[str, str]]] = {}
    with florlog.open(store) as log:
        answers = log.run().log.answers
        assert answers is not None
        for entry in answers.scan():
            if isinstance(record := entry.record, Hindsight):
                for _, name, _ in record.values:
                    found.setdefault(name, set()).add((record.trust, record.detail))
    return found


@pytest.mark.parametrize("code", NOISE)
def test_a_statement_that_reads_from_outside_says_what_and_is_not_proven(
    code: str, labels: dict[str, set[tuple[str, str]]]
) -> None:
    ((trust, detail),) = labels[f"n{NOISE.index(code)}"]
    assert trust == "CONSISTENT"
    assert detail.startswith(("reads ", "contains "))


@pytest.mark.parametrize("code", QUIET)
def test_a_statement_that_reads_state_and_items_alone_is_proven(
    code: str, labels: dict[str, set[tuple[str, str]]]
) -> None:
    assert labels[f"q{QUIET.index(code)}"] == {("PROVEN", "")}


@pytest.mark.parametrize("name", EXPECTED)
def test_what_was_read_reaches_the_values_that_are_made_of_it(
    name: str, labels: dict[str, set[tuple[str, str]]]
) -> None:
    assert ("PROVEN" in {trust for trust, _ in labels[name]}) is EXPECTED[name], labels[name]
    assert len({trust for trust, _ in labels[name]}) == 1
