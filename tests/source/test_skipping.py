"""A loop can be skipped only if what it makes reaches nothing but recorded log statements and prints."""

from __future__ import annotations

import textwrap

import pytest

from florlog.source.reach.regions import ProgramAnalysis

FILE = "train.py"
SCRIPT = """
    import random
    import torch
    import florlog

    class Meter:
        def __init__(self):
            self.sum = 0

        def count(self, x):
            self.sum += x

    def evaluate(run, model, loader, meter):
        right, seen = 0, []
        for x in run.loop("val", loader):
            right += model(x).sum().item()
            BODY
        AFTER
        return right

    def main():
        meter, history, best = Meter(), [], 0
        with florlog.run("r") as run:
            run.track(model=model)
            for epoch in run.loop("epoch", range(3)):
                for bx in run.loop("step", []):
                    TRAIN
                accuracy = evaluate(run, model, val, meter)
                REST

    main()
"""


def skipped(body: str = "pass", after: str = "pass", train: str = "pass", rest: str = "pass") -> bool:
    """Whether the loop ``val`` can be skipped; lines that end in ``# ADDED`` are asked for."""
    text = textwrap.dedent(SCRIPT)
    for mark, code in (("BODY", body), ("AFTER", after), ("TRAIN", train), ("REST", rest)):
        text = text.replace(mark, code)
    added = frozenset(number for number, line in enumerate(text.splitlines(), 1) if line.endswith("# ADDED"))
    program = ProgramAnalysis({FILE: text}, FILE)
    (loop,) = (loop for loop in program.loops if loop.call.name == "val")
    return program.skipping({FILE: added}).skipped(loop) is not None


@pytest.mark.parametrize(
    "code",
    [
        {},
        {"body": "seen.append(x)"},
        {"rest": "run.log(accuracy=accuracy)"},
        {"rest": "best = max(best, accuracy); run.log(best=best)"},
        {"rest": "print(f'{accuracy:.3f}')"},
        {"rest": "run.log(w=model.w)  # ADDED"},
        {"after": "seen = torch.stack(seen).mean()"},
    ],
)
def test_a_loop_whose_results_are_only_told_is_skipped(code: dict[str, str]) -> None:
    assert skipped(**code)


@pytest.mark.parametrize(
    "code",
    [
        {"body": "meter.count(x)"},
        {"body": "model.w = x"},
        {"body": "model.w[0] = x"},
        {"body": "model.w.add_(1)"},
        {"body": "loader.extend(x)"},
        {"body": "torch.nn.init.zeros_(model.w)"},
        {"body": "torch.add(x, 1, out=model.w)"},
        {"body": "torch.save(x, 'x.pt')"},
        {"body": "random.random()"},
        {"body": "return 3"},
        {"body": "model.eval()"},
        {"body": "next(seen)"},
        {"body": "global total; total += x"},
        {"body": "global total; total = x"},
        {"after": "if right: model.w = 1"},
        {"after": "meter.best = right"},
        {"after": "run.log(last=x)  # ADDED"},
        {"rest": "run.log(best=accuracy)  # ADDED"},
        {"rest": "best = max(best, accuracy); run.log(best=best)  # ADDED"},
        {"rest": "history.append(accuracy)"},
        {"rest": "scheduler.step(accuracy)"},
        {"rest": "best = accuracy", "train": "train(best)"},
        {"rest": "best = accuracy", "train": "run.log(best=best)  # ADDED"},
        {"rest": "if accuracy > best: break"},
        {"rest": "history = lambda: accuracy"},
        {"rest": "last = evaluate(run, model, [accuracy], meter)"},
    ],
)
def test_a_loop_that_something_else_may_depend_on_is_not_skipped(code: dict[str, str]) -> None:
    assert not skipped(**code)


def test_a_loop_that_goes_on_with_what_it_made_the_last_time_is_not_skipped() -> None:
    text = """
        import florlog

        with florlog.run("r") as run:
            right = 0
            for epoch in run.loop("epoch", range(3)):
                RESET
                for x in run.loop("val", range(3)):
                    right += x
                run.log(right=right)
    """
    for reset, expected in (("right = 0", True), ("pass", False)):
        program = ProgramAnalysis({FILE: textwrap.dedent(text).replace("RESET", reset)}, FILE)
        (loop,) = (loop for loop in program.loops if loop.call.name == "val")
        assert (program.skipping({}).skipped(loop) is not None) is expected
