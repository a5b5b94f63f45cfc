"""The guided tour of florlog, as `make demo` runs it: record, kill, resume, ask afterwards.

It works on a copy of examples/digits.py in .demo/, where you can look at everything afterwards. Every claim
is checked on the spot; the exit code is 1 if one is false.
"""

import ast
import difflib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pandas

import florlog

HERE = Path(__file__).resolve().parent
WORK = HERE.parent / ".demo"
STORE, REFERENCE, RERUN = WORK / "store", WORK / "reference", WORK / "rerun"
FLORLOG = Path(sys.executable).with_name("florlog")

KILL_AFTER = "epoch 2"  # the last line the script gets to print before it is killed
ASKED = "epoch == 5"

CONFUSION = "run.log(confusion=torch.bincount(10 * targets + predictions, minlength=100).reshape(10, 10))"
GRAD_NORM = "run.log(grad_norm=nn.utils.get_total_norm([p.grad for p in model.parameters()]))"

failures = []


def heading(text):
    print(f"\n\n━━ {text} {'━' * (96 - len(text))}\n", flush=True)


def say(text):
    print(textwrap.fill(" ".join(text.split()), 100), end="\n\n", flush=True)


def check(claim, holds):
    print(f"  {'ok      ' if holds else 'FAILED  '}{claim}", flush=True)
    if not holds:
        failures.append(claim)


def table(head, *rows):
    widths = [max(len(str(row[i])) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, ["─" * width for width in widths], *rows):
        cells = [str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  " + "   ".join(cells).rstrip())
    print(flush=True)


def start(*command, store, errors=subprocess.STDOUT):
    """Start a command in the work directory, shown as somebody would type it."""
    shown = " ".join(f"'{word}'" if " " in word else word for word in map(str, command[1:]))
    print(f"  $ {'florlog' if command[0] == FLORLOG else 'python'} {shown}", flush=True)
    # A second thread gains such a small model little, and loses much whenever another process wants a core.
    environment = {"OMP_NUM_THREADS": "1"} | os.environ | {"FLORLOG_STORE": str(store)}
    return subprocess.Popen(
        list(map(str, command)),
        cwd=WORK,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        bufsize=1,
    )


def run(*command, store=STORE, quiet=False):
    """Run a command to its end, its output indented (quiet: errors only if it fails); the seconds that took."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        with start(*command, store=store, errors=errors if quiet else subprocess.STDOUT) as process:
            for line in process.stdout:
                print(f"    {line}".rstrip(), flush=True)
        seconds = time.perf_counter() - began
        if process.returncode != 0:
            errors.seek(0)
            print(f"{errors.read()}  exit code {process.returncode}", flush=True)
            failures.append(f"the command exits with 0: {' '.join(map(str, command[1:]))}")
    print(flush=True)
    return seconds


def plan_of(*arguments):
    """What `florlog explain` says, as data."""
    command = [FLORLOG, "explain", *arguments, "--store", STORE, "--format", "json"]
    return json.loads(subprocess.run(command, cwd=WORK, check=True, stdout=subprocess.PIPE).stdout)


def plain(value):
    return value.tolist() if hasattr(value, "tolist") else value


def logged(store, *names):
    """{(name, path): value} of a store's newest run; exact, since repr() of a float is."""
    frame = florlog.open(store).runs[-1].values(*names)
    loops = [column for column in frame.columns if column not in (*names, "trust")]
    found = {}
    for row in frame.to_dict("records"):
        path = tuple((loop, int(row[loop])) for loop in loops if not pandas.isna(row[loop]))
        for name in names:
            text = repr(plain(row[name]))
            if text not in ("nan", "None", "<NA>"):
                found[name, path] = text
    return found


def add_after(script, anchor, statement):
    """Insert a statement on the line after the one that reads `anchor`, equally indented."""
    lines = script.read_text().splitlines(keepends=True)
    (at,) = (i for i, line in enumerate(lines) if line.strip() == anchor)
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    lines.insert(at + 1, f"{indent}{statement}\n")
    script.write_text("".join(lines))


def show_diff(before, after):
    for line in difflib.unified_diff(
        before.splitlines(), after.splitlines(), "digits.py, as recorded", "digits.py, now", lineterm="", n=1
    ):
        print(f"    {line}")
    print(flush=True)


def record_and_kill():
    heading("1  A training is recorded, and killed")
    say("""digits.py trains a small convolutional network: 8 epochs of 90 steps, with dropout, a shuffling
        DataLoader, Adam and a learning-rate schedule. It logs its loss and its accuracy. In the middle of
        epoch 3 it is killed by SIGKILL, which it cannot catch: no handler runs, no buffer is flushed.""")
    with start(sys.executable, "digits.py", "--out", "result.json", store=STORE) as process:
        for line in process.stdout:
            print(f"    {line.rstrip()}", flush=True)
            if line.startswith(KILL_AFTER):
                time.sleep(0.45)  # about half an epoch
                process.kill()
    print("    Killed\n", flush=True)
    check("the script was killed and left no result", process.returncode == -9 and not result("result.json"))
    print()
    say("Every iteration that had ended is in the log:")
    run(FLORLOG, "runs")


def result(name):
    """The digest of the final parameters that a script wrote, if it got that far."""
    file = WORK / name
    return json.loads(file.read_text())["parameters"] if file.exists() else None


def resume():
    heading("2  The run continues where it was")
    say("""Recovery restores the nearest image of the training state (weights, optimizer, schedule, random
        generators, position in the shuffled data), re-executes the steps from there to the end of the log,
        compares each with the log, and then the script continues as the same run.""")
    run(FLORLOG, "resume", "digits.py")

    say("""Did the crash leave a trace in the result? Here is the same script, never interrupted, recorded into
        another store:""")
    run(sys.executable, "digits.py", "--out", "reference.json", store=REFERENCE)
    killed, reference = (logged(store, "loss", "accuracy") for store in (STORE, REFERENCE))
    rows = [
        (name, len(there := select(reference, name)), len(here := select(killed, name)), yes(here == there))
        for name in ("loss", "accuracy")
    ]
    digests = [result("reference.json"), result("result.json")]
    table(
        ("", "uninterrupted", "killed and resumed", "equal, bit for bit"),
        *((f"{name} values", *cells) for name, *cells in rows),
        ("final parameters", *(f"{str(digest)[:16]}…" for digest in digests), yes(digests[0] == digests[1])),
    )
    check("every logged value of the two runs is equal", killed == reference and len(killed) == 8 * 90 + 8)
    check("so are the final parameters", digests[0] is not None and digests[0] == digests[1])


def most_confused(matrix):
    """How many mistakes a confusion matrix (nested lists) holds, and the most frequent of them."""
    mistakes = [
        (count, -true, -read)
        for true, row in enumerate(matrix)
        for read, count in enumerate(row)
        if true != read and count
    ]
    if not mistakes:
        return 0, ""
    count, true, read = max(mistakes)
    return sum(count for count, _, _ in mistakes), f"{-true} read as {-read}, {count} of them"


def select(values, name):
    return {path: value for (n, path), value in values.items() if n == name}


def yes(holds):
    return "yes" if holds else "NO"


def ask():
    script = WORK / "digits.py"
    recorded = script.read_text()

    heading("3  A question that nobody thought of: which digits were confused, epoch by epoch?")
    say(
        """The confusion matrices were not logged. So a statement that logs them is added to the script now:"""
    )
    add_after(script, "run.log(accuracy=accuracy)", CONFUSION)
    show_diff(recorded, script.read_text())
    say("""florlog finds the added statement by comparing the syntax trees, and then the cheapest way to execute
        it. The statement comes after the step loop, so no step is needed where an image has the state at the
        end of the loop. This is the plan, before anything is executed:""")
    run(FLORLOG, "explain", "digits.py")
    say("Now it is executed:")
    first = run(FLORLOG, "replay", "digits.py", quiet=True)
    say("Now we know, for example:")
    matrices = select(logged(STORE, "confusion"), "confusion")
    rows = [(dict(path)["epoch"], *most_confused(ast.literal_eval(m))) for path, m in matrices.items()]
    table(("epoch", "mistakes", "the most frequent"), *rows)

    heading("4  A question in the inner loop: the gradient norm of each step of epoch 5")
    say("""Gradients exist only in the middle of a step, and no checkpoint has them. The steps must be
        executed again, but only those that are asked for:""")
    before = script.read_text()
    add_after(script, "loss.backward()", GRAD_NORM)
    show_diff(before, script.read_text())
    run(FLORLOG, "explain", "digits.py", "--where", ASKED)
    second = run(FLORLOG, "replay", "digits.py", "--where", ASKED, quiet=True)
    norms = [float(norm) for norm in select(logged(STORE, "grad_norm"), "grad_norm").values()]
    if norms:
        print(
            f"  smallest {min(norms):.3f}, median {statistics.median(norms):.3f}, largest {max(norms):.3f}\n"
        )
    plan = plan_of("digits.py", "--where", ASKED)
    check(
        f"{plan['iterations_redone']} of {plan['iterations_total']} iterations were planned",
        plan["iterations_redone"] < plan["iterations_total"] / 2,
    )
    return first, second


def compare_with_rerun(first, second):
    heading("5  Were these the true values, and what did they cost?")
    say("""Without florlog you would run the changed script again from the start, and wait. Such a rerun logs both
        values, so it also shows whether the values of the replay were the true ones.""")
    rerun = run(sys.executable, "digits.py", "--out", "rerun.json", store=RERUN)
    replayed, true = (logged(store, "confusion", "grad_norm") for store in (STORE, RERUN))
    confusion, grad_norm = select(replayed, "confusion"), select(replayed, "grad_norm")
    wanted = {path: v for path, v in select(true, "grad_norm").items() if dict(path)["epoch"] == 5}
    table(
        ("", "values", "seconds", "by rerun", "equal, bit for bit"),
        (
            "confusion matrices, 8 epochs",
            len(confusion),
            f"{first:.1f}",
            f"{rerun:.1f}",
            yes(confusion == select(true, "confusion")),
        ),
        (
            "gradient norms of epoch 5",
            len(grad_norm),
            f"{second:.1f}",
            f"{rerun:.1f}",
            yes(grad_norm == wanted),
        ),
    )
    say("""The seconds are those of the whole command. Starting Python, importing PyTorch and loading the data
        take most of the time here. If epochs took an hour, they would not matter.""")
    check("the replayed confusion matrices are those of the rerun", confusion == select(true, "confusion"))
    check("so are the replayed gradient norms", grad_norm == wanted and len(wanted) == 90)
    frame = florlog.open(STORE).runs[-1].values("confusion", "grad_norm")
    trust = {str(label): int(count) for label, count in frame["trust"].value_counts().items() if count}
    check(f"every replayed value carries its trust label: {trust}", "DIVERGED" not in trust)


def main():
    began = time.perf_counter()
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir()
    shutil.copy(HERE / "digits.py", WORK)
    record_and_kill()
    resume()
    compare_with_rerun(*ask())

    heading("Done")
    print(f"  {time.perf_counter() - began:.0f} seconds. The scripts and the stores are in .demo/:")
    print("    FLORLOG_STORE=.demo/store .venv/bin/florlog inspect\n")
    for claim in failures:
        print(f"  FAILED  {claim}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
