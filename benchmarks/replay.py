"""What a question costs afterwards: florlog's replay, a full rerun and flordb, on the same training.

    python benchmarks/replay.py                            20 epochs of 100 steps: some ten minutes
    python benchmarks/replay.py --steps 30 --rounds 1      a quick look
    python benchmarks/replay.py --questions "every step"   one of the questions
    python benchmarks/replay.py --flordb /path/to/python   with a Python that has flordb 4.0.1, torch and git

The questions are: one value per epoch from the state at its beginning; one step of one epoch; every step, by one worker
and by as many as there are cores.  A rerun is the plain training with the statement in it, without florlog.  It and
the questions take turns within a round, and a ratio compares times of one round.  *Loop* is the training loop alone,
*wall* is the whole process with interpreter, imports and data.  What florlog adds to start-up is its wall time without
its loop, minus the same of the rerun.  *Parts at once* are as many plain trainings as there are cores, side by side,
each of its share of the epochs: the best that the machine lets several workers reach.  Prints a Markdown table.

The sizes: an epoch of about 1.5 s (100 steps of 15 ms) with a state of 18 MB (parameters, gradients, Adam's moments)
represents one of minutes.  If a restored state answers the question, the length of the epoch does not matter, so longer
epochs have larger ratios, and epochs of a few tenths of a second cannot become a hundred times faster.  A step in the
middle of an epoch costs half an epoch from the epoch's own image, so with 20 epochs it becomes forty times faster, or
more if the budget paid for images inside.  The recording has florlog's default overhead.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SCRIPT = """
import json
import os
import sys
import time

import torch
from sklearn.datasets import load_digits
from torch import nn

IMPORT

torch.manual_seed(0)
torch.set_num_threads(1)
images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
model = nn.Sequential(nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))
optimizer = torch.optim.Adam(model.parameters())
values = []


def train(log):
    for epoch in EPOCHLOOP:
        # EPOCH
        for step in STEPLOOP:
            batch = torch.randint(len(x), (128,))
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            # STEP
            optimizer.step()
            log(loss=loss.item())


started = time.perf_counter()
RUN
if "TOLD" in os.environ:
    with open(os.environ["TOLD"], "w") as told:
        json.dump(time.perf_counter() - started, told)
"""

TRACK, TRAIN = "run.track(model=model, optimizer=optimizer)", "train(run.log)"

QUESTIONS = {
    "one value per epoch": ("# EPOCH", "norm", "model[2].weight.norm().item()"),
    "one step of one epoch": ("# STEP", "grad", "model[2].weight.grad.norm().item()"),
    "every step": ("# STEP", "grad", "model[2].weight.grad.norm().item()"),
}


@dataclass
class Took:
    """Seconds of one way: its loop and its whole process."""

    loop: float
    wall: float


def script(way: str, options: argparse.Namespace, question: str | None) -> str:
    """The training as florlog, flordb or nobody sees it."""
    epochs, steps = options.epochs, options.steps
    parts = {
        "plain": (
            "",
            f"range({epochs})",
            f"range({steps})",
            "train(lambda loss: values.append(loss))",
        ),
        "florlog": (
            "import florlog",
            f'run.loop("epoch", range({epochs}))',
            f'run.loop("step", range({steps}))',
            f"with florlog.run('bench', overhead={options.overhead}) as run:\n    {TRACK}\n    {TRAIN}",
        ),
        "flordb": (
            "import flordb as flor",
            f'flor.loop("epoch", range({epochs}))',
            f'flor.loop("step", range({steps}))',
            "train(lambda loss: flor.log('loss', loss))",
        ),
    }[way]
    text = SCRIPT
    for name, value in zip(("IMPORT", "EPOCHLOOP", "STEPLOOP", "RUN"), parts, strict=True):
        text = text.replace(name, value)
    text = text.replace("WIDTH", str(options.width))
    if question is not None:
        place, name, value = QUESTIONS[question]
        statement = {
            "plain": f"values.append({value})",
            "florlog": f"florlog.log({name}={value})",
            "flordb": f'flor.log("{name}", {value})',
        }[way]
        text = text.replace(place, statement)
    return text.lstrip()


def timed(command: list[str], folder: Path, **more: str) -> tuple[float, str]:
    """Wall seconds of a command, and what it printed."""
    kept = {key: text for key, text in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment = {**kept, "OMP_NUM_THREADS": "1", **more}  # users have compiled modules
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return seconds, done.stdout


def rerun(folder: Path, options: argparse.Namespace, question: str | None) -> Took:
    """The plain training."""
    file, told = folder / "plain.py", folder / "told.json"
    file.write_text(script("plain", options, question))
    wall, _ = timed([sys.executable, str(file)], folder, TOLD=str(told))
    return Took(json.loads(told.read_text()), wall)


def parts_at_once(folder: Path, options: argparse.Namespace, cores: int) -> Took:
    """Plain trainings of a share of the epochs each, side by side."""
    shares = [len(range(number, options.epochs, cores)) for number in range(cores)]
    files = [folder / f"part{number}.py" for number in range(cores)]
    for file, epochs in zip(files, shares, strict=True):
        part = argparse.Namespace(**{**vars(options), "epochs": epochs})
        file.write_text(script("plain", part, "every step"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    told = [folder / f"told{number}.json" for number in range(cores)]
    started = time.perf_counter()
    running = [
        subprocess.Popen([sys.executable, str(file)], cwd=folder, env={**environment, "TOLD": str(place)})
        for file, place in zip(files, told, strict=True)
    ]
    ended = [process.wait() for process in running]
    if any(ended):
        raise SystemExit("a part failed")
    wall = time.perf_counter() - started
    return Took(max(json.loads(place.read_text()) for place in told), wall)


def replay(folder: Path, options: argparse.Namespace, question: str, *more: str) -> tuple[Took, int]:
    """A replay from a fresh copy of the recorded store; how many values it found."""
    file, store = folder / "train.py", folder / "asked"
    shutil.copytree(folder / "store", store)
    file.write_text(script("florlog", options, question))
    command = ["replay", str(file), "--store", str(store), "--format", "json", "--analyze", *more]
    wall, output = timed([sys.executable, "-m", "florlog", *command], folder)
    shutil.rmtree(store)
    answer = json.loads(output)
    wrong = {value["trust"] for value in answer["values"]} - {"PROVEN"}
    if wrong:
        raise SystemExit(f"{question}: values are {', '.join(wrong)}")
    # Several workers do not tell what each segment took.
    loop = sum(segment.get("actual_seconds", float("nan")) for segment in answer["plan"]["segments"])
    return Took(loop, wall), len(answer["values"])


def flordb(folder: Path, options: argparse.Namespace, question: str, *iterations: str) -> Took:
    """flordb's replay of a recorded script, as it is called for one run."""
    place = folder / "flordb"
    file, told = place / "train.py", folder / "told.json"
    who = {f"GIT_{role}_{part}": "bench" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    if not place.exists():
        place.mkdir()
        file.write_text(script("flordb", options, None))
        for command in (["init", "-q", "-b", "flor.bench"], ["add", "."], ["commit", "-qm", "bench"]):
            timed(["git", *command], place, **who)
        timed([options.flordb, "train.py"], place, **who)
    file.write_text(script("flordb", options, question))
    name = QUESTIONS[question][1]
    command = [options.flordb, "train.py", "--replay_flor", "--apply", name]
    wall, _ = timed(
        [*command, *(word for i in iterations for word in ("--iter", i))], place, TOLD=str(told), **who
    )
    return Took(json.loads(told.read_text()), wall)


def record(folder: Path, options: argparse.Namespace) -> int:
    """Record the run; how many images it has."""
    file = folder / "train.py"
    file.write_text(script("florlog", options, None))
    timed([sys.executable, str(file)], folder, FLORLOG_STORE=str(folder / "store"))
    import florlog

    with florlog.open(folder / "store") as log:
        return sum(len(loop.images) for loop in log.run().tree().loops())


def row(what: str, way: str, took: list[Took], base: list[Took], more: str = "") -> str:
    """A line of the table; ratios are of one round."""
    middle = statistics.median
    loops = middle(t.loop for t in took)
    loop = "" if loops != loops else f"{loops:.3f}"
    ratio = (
        "" if loops != loops else f"{middle(b.loop / t.loop for t, b in zip(took, base, strict=True)):.1f}x"
    )
    walls = middle(b.wall / t.wall for t, b in zip(took, base, strict=True))
    added = ""
    if way == "florlog" and loops == loops:
        own = middle((t.wall - t.loop) - (b.wall - b.loop) for t, b in zip(took, base, strict=True))
        added = f"{own:.2f}"
    cells = [what, way, loop, ratio, f"{middle(t.wall for t in took):.2f}", f"{walls:.1f}x", added, more]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--width", type=int, default=1024, help="of the hidden layers")
    parser.add_argument("--overhead", type=float, default=0.02, help="the recording's share for images")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--questions", nargs="+", choices=list(QUESTIONS), default=list(QUESTIONS))
    parser.add_argument("--flordb", metavar="PYTHON", help="a Python with flordb")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    epoch, step = options.epochs * 2 // 3, options.steps // 2
    point = f"epoch == {epoch} and step == {step}"
    ways: dict[tuple[str, str], Callable[[Path], Took]] = {
        ("one value per epoch", "florlog"): lambda f: replay(f, options, "one value per epoch")[0],
        ("one step of one epoch", "florlog"): lambda f: replay(
            f, options, "one step of one epoch", "--where", point
        )[0],
        ("every step", "florlog"): lambda f: replay(f, options, "every step")[0],
        ("every step", "parts at once"): lambda f: parts_at_once(f, options, cores),
        ("every step", f"florlog, {cores} workers"): lambda f: replay(
            f, options, "every step", "--workers", str(cores)
        )[0],
    }
    if options.flordb:
        every = "epoch=all"
        ways[("one value per epoch", "flordb")] = lambda f: flordb(f, options, "one value per epoch", every)
        ways[("one step of one epoch", "flordb")] = lambda f: flordb(
            f, options, "one step of one epoch", f"epoch={epoch}", f"step={step}"
        )
        ways[("every step", "flordb")] = lambda f: flordb(f, options, "every step", every, "step=all")
    with tempfile.TemporaryDirectory(prefix="florlog-bench-") as name:
        folder = Path(name)
        images = record(folder, options)
        base: dict[str, list[Took]] = {question: [] for question in options.questions}
        found: dict[tuple[str, str], list[Took]] = {way: [] for way in ways if way[0] in base}
        for _ in range(options.rounds):
            for question in base:
                base[question].append(rerun(folder, options, question))
                for asked, way in found:
                    if asked == question:
                        found[asked, way].append(ways[asked, way](folder))
    size = f"{options.epochs} epochs of {options.steps} steps, hidden layers of {options.width}"
    print(
        f"{size}, {images} images at overhead={options.overhead}, {options.rounds} rounds, medians, {cores} cores,"
    )
    print(f"load {os.getloadavg()[0]:.1f} at the end\n")
    print("| question | way | loop, s | faster | wall, s | faster | start-up added, s | |")
    print("|---|---|---|---|---|---|---|---|")
    for question in base:
        print(row(question, "full rerun", base[question], base[question]))
        for (asked, way), took in found.items():
            if asked == question:
                ratio = ""
                if asked == "every step" and way != "flordb":
                    parts = 1 if way == "florlog" else cores
                    against = [t.wall * parts / b.wall for t, b in zip(took, base[question], strict=True)]
                    ratio = f"{statistics.median(against):.2f} x rerun / {parts}"
                print(row(question, way, took, base[question], ratio))


if __name__ == "__main__":
    main()
