"""The documentation points at things that exist, and what it tells a reader to run does run.

A block of ```` ```python ````, ```` ```sh ```` or ```` ```ipython ```` is executed by the function that follows its
page, by the test of its own that `ELSEWHERE` names, or not at all: then the line before it says
``<!-- not run: REASON -->``.  Output is a block of ``text``.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import florlog
from tests.end_to_end.harness import Nursery, environment

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not any(part.startswith(".") for part in page.relative_to(ROOT).parts)
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(
    r"(?P<before>[^\n]*)\n```(?P<kind>python|sh|ipython)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL
)
NOT_RUN = re.compile(r"<!-- not run: \S.* -->")

# The pages whose blocks another test runs.
ELSEWHERE = {
    "docs/tutorial.md": "tests/inspect/test_tutorial.py",
    "wal/README.md": "tests/wal/test_readme.py",
}

# What the README leaves to the reader's imagination, in the smallest size that lets its lines run.  Where a file
# named "die" lies, a training is killed in its 50th step.
IMAGINED = """
import os
import signal
from pathlib import Path

import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(x)

def build():
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1000)
    data = torch.utils.data.TensorDataset(torch.randn(36, 4), 9 * torch.randn(36, 2))
    return model, optimizer, scheduler, torch.utils.data.DataLoader(data, 2, shuffle=True)

def die(optimizer):
    if os.path.exists("die") and any(state["step"] == 50 for state in optimizer.state.values()):
        os.remove("die")
        os.kill(os.getpid(), signal.SIGKILL)

def train_step(model, optimizer, x, y):
    loss = nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    die(optimizer)
    return loss

def evaluate(model):
    return model.fc.weight.sum().item()
"""
# An epoch that lasts milliseconds gets no image by itself.
EVERY_IMAGE = ("params=", "overhead=float('inf'), params=")
ASKED = ("loss.backward()\n", "loss.backward()\n    florlog.log(grad_norm=model.fc.weight.grad.norm())\n")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    """Code on a page that a reader may run."""

    kind: str
    text: str
    marked: bool


def blocks(page: Path) -> list[Block]:
    """The runnable blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(found["kind"], found["text"], NOT_RUN.fullmatch(found["before"]) is not None)
        for found in FENCE.finditer(text)
    ]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_inside_the_repository_leads_somewhere(page: Path) -> None:
    links = [link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8"))]
    inside = [link for link in links if link and "://" not in link]
    assert [link for link in inside if not (page.parent / link).exists()] == []


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_to_a_heading_finds_it(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        file, _, heading = link.partition("#")
        if heading and "://" not in link:
            assert heading in anchors(page.parent / file if file else page), link


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_module_that_a_page_names_by_its_path_is_there(page: Path) -> None:
    named = re.findall(
        r"`((?:tests|florlog|wal|recovery|benchmarks|examples)/[\w/]+\.py)\b", page.read_text("utf-8")
    )
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_python_block_parses(page: Path) -> None:
    for block in blocks(page):
        if block.kind == "python":
            compile(block.text, name(page), "exec")


def test_the_readme_is_among_the_pages_checked() -> None:
    assert ROOT / "README.md" in PAGES


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    if all(block.marked for block in blocks(page)):
        assert name(page) not in FOLLOWED, "it has nothing to run"
        return
    assert (name(page) in FOLLOWED) != (name(page) in ELSEWHERE)
    if name(page) in ELSEWHERE:
        assert page.name in (ROOT / ELSEWHERE[name(page)]).read_text(encoding="utf-8")


class Reader:
    """Somebody who does in a directory of their own what a page says, block after block."""

    def __init__(self, page: Path, folder: Path, nursery: Nursery) -> None:
        self.folder = folder
        self._nursery = nursery
        self._store = folder / ".florlog"
        self._left = [block for block in blocks(page) if not block.marked]
        self._names: dict[str, Any] = {}

    def write(self, name: str, text: str) -> None:
        """Put a file there."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def edit(self, name: str, *changes: tuple[str, str]) -> None:
        """Replace texts of a file."""
        text = (self.folder / name).read_text(encoding="utf-8")
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        self.write(name, text)

    def next(self, kind: str) -> str:
        """The next block's text."""
        block = self._left.pop(0)
        assert block.kind == kind
        return block.text

    def python(self) -> dict[str, Any]:
        """Execute the next block; the names that all blocks so far have bound."""
        exec(compile(self.next("python"), "block", "exec"), self._names)
        return self._names

    def sh(self, **hooks: Callable[[], None]) -> dict[str, str]:
        """Execute the next block line by line; what each line printed.

        A hook is called before the lines that have its name as their command, or second word.
        """
        printed = {}
        for line in filter(None, self.next("sh").splitlines()):
            words = shlex.split(line, comments=True)
            for word in words[:2]:
                if word.strip("$") in hooks:
                    hooks[word.strip("$")]()
            printed[line.partition("#")[0].strip()] = self.line(words)
        return printed

    def line(self, words: list[str]) -> str:
        """Execute one line: ``python`` and ``florlog`` in a process that has torch already."""
        if words[0] in ("kill", "$EDITOR"):  # a training kills itself, and an editor is a hook
            return ""
        assert words[0] in ("python", "florlog")
        runs = iter(self.runs())
        words = [re.sub(r"\b(?:RUN|ID)\b", lambda _: next(runs), word) for word in words]
        if words[0] == "python":
            words = [str(self.folder / words[1]), *words[2:]]
        self._nursery.run(self._store, *words)
        return (self._nursery.directory / "output.txt").read_text(encoding="utf-8")

    def runs(self) -> list[str]:
        """The ids of the runs, newest first."""
        if not self._store.exists():
            return []
        with florlog.open(self._store) as log:
            return [run.id for run in reversed(log.runs)]

    def end(self) -> None:
        """All of the page was followed."""
        assert self._left == []


def training() -> str:
    """The README's script."""
    return IMAGINED + blocks(ROOT / "README.md")[1].text.replace(*EVERY_IMAGE)


def recorded(reader: Reader, times: int = 1) -> None:
    """A store with runs of the README's script, ten epochs each."""
    reader.write("train.py", training().replace("range(20)", "range(10)"))
    for _ in range(times):
        reader.line(["python", "train.py"])


def readme(reader: Reader) -> None:
    reader.write("train.py", IMAGINED + reader.next("python").replace(*EVERY_IMAGE))
    reader.write("die", "")
    said = reader.sh(EDITOR=lambda: reader.edit("train.py", ASKED))
    assert "360 of 360" not in said["florlog explain train.py --where 'epoch == 7'"]
    names = reader.python()
    frame = names["run"].values("loss", "accuracy", "grad_norm")
    assert len(frame) == 20 * 18 + 20
    asked = frame[frame["grad_norm"].notna()]
    assert asked.groupby("epoch").size().to_dict() == {3: 10, 7: 18}
    assert "model" in set(names["run"].state_at(epoch=3))
    sweep(reader)


def sweep(reader: Reader) -> None:
    shutil.copytree(ROOT / "examples", reader.folder / "examples")
    reader.write(
        "edit.py",
        "import sys\nfrom pathlib import Path\nscript = Path(sys.argv[1])\ntext = script.read_text()\n"
        "old = '                loss.backward()\\n'\nassert old in text\n"
        "script.write_text(text.replace(old, old + '                run.log(bias=model[-1].bias.norm())\\n'))\n",
    )
    store = reader.folder / "swept"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", reader.next("sh").replace("florlog ", "python -m florlog ")],
        cwd=reader.folder, env=environment(store) | {"PATH": path, "EDITOR": "python edit.py"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rates = [f"lr={lr}" for lr in ("0.0003", "0.001", "0.003", "0.01")]
    listed = [line for line in done.stdout.splitlines() if "lr=" in line]
    assert sorted(re.search(r"lr=\S+", line)[0] for line in listed) == rates  # type: ignore[index]
    assert all("accuracy=" in line for line in listed)
    with florlog.open(store) as log:
        runs = [run.id for run in log.runs]
        assert all({value.name for value in run.hindsight()} == {"bias"} for run in log.runs)
    rows = [
        line
        for line in done.stdout.splitlines()
        if line.startswith("digits-") and line.endswith(("PROVEN", "CONSISTENT"))
    ]
    assert sorted(line.split()[0] for line in rows) == sorted(runs)


def hindsight(reader: Reader) -> None:
    recorded(reader, times=2)
    reader.edit("train.py", ASKED)
    reader.sh()
    said = reader.sh()
    assert all(run in said["florlog replay train.py --all"] for run in reader.runs())

    block = reader.next("python")
    was = re.sub(r"(?m)^run\.log.*\n", "", re.sub(r"(?m)^.*# was: (.*)$", r"\1", block))
    was = was.replace("loss = cross_entropy(logits, y)\n", "")
    script = (
        "import torch, florlog\nfrom torch.nn.functional import cross_entropy\n"
        "from torch.nn.utils import clip_grad_norm_\n"
        "torch.manual_seed(0)\nmodel = torch.nn.Linear(4, 3)\nx, y = torch.randn(8, 4), torch.arange(8) % 3\n"
        "optimizer = torch.optim.SGD(model.parameters(), 0.1)\n"
        "with florlog.run('named', overhead=float('inf')) as run:\n"
        "    run.track(model=model, optimizer=optimizer)\n"
        "    for step in run.loop('step', range(9)):\n"
        "        optimizer.zero_grad()\n        cross_entropy(model(x), y).backward()\n"
        "BLOCK        run.log(loss=loss)\n        optimizer.step()\n"
    )
    for text in (was, block):
        indented = "".join(f"        {line}\n" for line in text.splitlines())
        reader.write("named.py", script.replace("BLOCK", indented))
        if text == was:
            reader.line(["python", "named.py"])
    answer = json.loads(reader.line(["florlog", "replay", "named.py", "--format", "json"]).splitlines()[-1])
    assert {value["name"] for value in answer["values"]} == {"norm", "spread"}
    assert len(answer["values"]) == 2 * 9

    reader.sh()
    names = reader.python()
    assert names["log"] is not None


def replay(reader: Reader) -> None:
    recorded(reader)
    reader.edit("train.py", ASKED)
    (said,) = reader.sh().values()
    assert "grad_norm" in said


def hands_free(reader: Reader) -> None:
    script = training().replace("range(20)", "range(int(sys.argv[2]) if sys.argv[1:] else 4)")
    plain = (
        "import sys\n" + script.replace("import florlog\n", "").partition("with florlog.run")[0] + "\n"
        "model, optimizer, scheduler, loader = build()\n"
        "for epoch in range(int(sys.argv[2]) if sys.argv[1:] else 4):\n"
        "    for x, y in loader:\n"
        "        loss = train_step(model, optimizer, x, y)\n"
        "    print('epoch', epoch, 'loss', loss.item())\n"
    )
    reader.write("train.py", plain)
    reader.write("package/__init__.py", "")
    reader.write("package/train.py", plain)
    reader.write("die", "")
    added = ("    print('epoch'", "    print('weight', model.fc.weight.sum().item())\n    print('epoch'")
    said = reader.sh(replay=lambda: reader.edit("train.py", added))
    assert "weight" in said["florlog replay train.py"]


def states(reader: Reader) -> None:
    pytest.importorskip("safetensors")
    recorded(reader)
    names = reader.python()
    trust, detail, _ = names["look"](reader.folder / ".florlog")
    assert (str(trust), detail) == ("RECORDED", "")
    reader.sh()
    assert (reader.folder / "state.safetensors").exists()
    assert (reader.folder / "state.pt").exists()


def bisect(reader: Reader) -> None:
    recorded(reader)
    said = reader.sh()
    assert all(said.values())


def inspect(reader: Reader) -> None:
    for needed in ("pyarrow", "duckdb", "matplotlib", "tensorboard"):
        pytest.importorskip(needed)
    recorded(reader, times=2)
    said = reader.sh()
    assert "Commit" in said["florlog inspect"]
    reader.python()
    reader.sh()
    assert (reader.folder / "values.parquet").exists()


def notebooks(reader: Reader) -> None:
    pytest.importorskip("IPython")
    load, record, ask = (reader.next("ipython") for _ in range(3))
    imagined = IMAGINED + (
        "model, optimizer, scheduler, loader = build()\n"
        "def train(model, loader):\n"
        "    for x, y in loader:\n"
        "        loss = train_step(model, optimizer, x, y)\n"
        "    return loss.item()\n"
        "def norm(model):\n"
        "    return model.fc.weight.norm().item()\n"
    )
    cells = [(load, "load"), (imagined, "imagined"), (record, "asked"), (ask, "asked")]
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "notebook" / "shell.py"],
        input=json.dumps(cells), cwd=reader.folder, capture_output=True, text=True, timeout=300, check=False,
        env=environment(reader.folder / ".florlog") | {"IPYTHONDIR": str(reader.folder / "ipython")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert [answer["raised"] for answer in answers] == [""] * 4
    assert "norm" in answers[3]["out"]


def recovery(reader: Reader) -> None:
    reader.write(
        "steps.py",
        "import florlog\n"
        "with florlog.run('steps', overhead=float('inf')) as run:\n"
        "    for step in run.loop('step', range(100)):\n"
        "        run.log(square=step * step)\n",
    )
    reader.line(["python", "steps.py"])
    reader.next("sh")  # tests/wal/test_alone.py installs both layers
    assert reader.python()["plan"].root.loops


FOLLOWED: dict[str, Callable[[Reader], None]] = {
    "README.md": readme,
    "docs/bisect.md": bisect,
    "docs/hands-free.md": hands_free,
    "docs/hindsight.md": hindsight,
    "docs/inspect.md": inspect,
    "docs/notebooks.md": notebooks,
    "docs/replay.md": replay,
    "docs/states.md": states,
    "recovery/README.md": recovery,
}


@pytest.mark.drawn(3)
@pytest.mark.parametrize("page", FOLLOWED)
def test_what_a_page_says_can_be_done(
    page: str, nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLORLOG_STORE", raising=False)
    reader = Reader(ROOT / page, tmp_path, nursery)
    FOLLOWED[page](reader)
    reader.end()
