"""A plain loop or a call is passed over only if nothing asked for depends on it, with what it leaves behind done."""

from __future__ import annotations

import textwrap

import pytest

from florlog.source.reach.regions import ProgramAnalysis
from florlog.source.skip.acts import Items, Mode
from florlog.source.skip.pieces import Piece

FILE = "train.py"
SCRIPT = """
    import torch
    from torch.utils.data import DataLoader
    import florlog

    def show(value):
        print(value)

    @torch.no_grad()
    def evaluate(model, loader):
        model.eval()
        right, seen = 0, 0
        for x, y in loader:
            right += (model(x).argmax(1) == y).sum().item()
            seen += len(y)
            # INSIDE
        model.train()
        return right / seen

    def main(model, optimizer, train, val, tracked):
        history, best, accuracy = [], 0.0, 0.0
        with florlog.run("r") as run:
            run.track(model=model)
            for epoch in run.loop("epoch", range(3)):
                for x, y in train:
                    optimizer.zero_grad()
                    model(x).sum().backward()
                    optimizer.step()
                    # STEP
                accuracy = evaluate(model, val)
                # REST

    main()
"""


def pieces(*changes: tuple[str, str]) -> list[Piece]:
    """The pieces of the script with parts replaced; lines that end in ``# ADDED`` are asked for."""
    text = textwrap.dedent(SCRIPT)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    added = frozenset(number for number, line in enumerate(text.splitlines(), 1) if line.endswith("# ADDED"))
    program = ProgramAnalysis({FILE: text}, FILE)
    return program.pieces(program.skipping({FILE: added}))


def texts(*changes: tuple[str, str]) -> list[str]:
    return [piece.text for piece in pieces(*changes)]


CALL = "accuracy = evaluate(model, val)"
DONE = (
    Mode("model", training=False, first=True),
    Items("val", whole=True),
    Mode("model", training=True, first=False),
)


def test_a_call_of_a_validation_pass_is_a_piece_and_leaves_modes_and_draws() -> None:
    (piece,) = pieces()
    assert (piece.file, piece.qualname, piece.text, piece.acts) == (FILE, "main", CALL, DONE)
    assert piece.left.stale == {("main", "accuracy")}
    assert piece.left.may_fail == set()


@pytest.mark.parametrize(
    "rest",
    [
        "run.log(accuracy=accuracy)",
        "best = max(best, accuracy); run.log(best=best)",
        "print(f'{accuracy:.3f}')",
        "run.log(w=model.weight)  # ADDED",
    ],
)
def test_its_result_may_be_told(rest: str) -> None:
    assert texts(("# REST", rest)) == [CALL]


@pytest.mark.parametrize(
    "changes",
    [
        [("# REST", "if accuracy > best: break")],
        [("# REST", "history.append(accuracy)")],
        [("# REST", "scheduler.step(accuracy)")],
        [("# REST", "run.log(a=accuracy)  # ADDED")],
        [("# STEP", "run.log(a=accuracy)  # ADDED")],
        [("# STEP", "florlog.log(a=accuracy)  # ADDED")],
        [("# INSIDE", "florlog.log(right=right)  # ADDED")],
        [("# INSIDE", "loader.dataset.append(x)")],
        [("# INSIDE", "torch.rand(1)")],
        [("# INSIDE", "torch.multinomial(x, 1)")],
        [("# INSIDE", "torch.manual_seed(3)")],
        [("# INSIDE", "torch.save(x, 'x.pt')")],
        [("# INSIDE", "model.train()")],
        [("# INSIDE", "next(y)")],
        [("# INSIDE", "model.seen = x")],
        [("# INSIDE", "model.zero_grad()")],
        [("# INSIDE", "model.remember(x)")],
        [("# INSIDE", "model(x)")],
        [("# INSIDE", "torch.set_grad_enabled(False)")],
        [("# INSIDE", "x += 1")],
        [("# INSIDE", "loader *= 2")],
        [("# INSIDE", "mean = x; mean += 1")],
        [("# INSIDE", "for z in florlog.loop('inner', x): pass")],
        [("    model.train()\n", "    model.train()\n    seen += model(x)\n")],
        [("    model.train()\n", "    model.train(was)\n")],
        [("    model.eval()\n", "    model.eval()\n    was = model.training\n"), ("rain()\n", "rain(was)\n")],
        [("    model.eval()\n", "    copy(model).eval()\n")],
        [("model.eval()\n", "model.eval()\n    if not loader: return 0\n")],
        [("in loader:", "in DataLoader(loader):")],
        [("model.eval()\n", "model.eval()\n    loader = DataLoader(loader)\n")],
        [(CALL, "accuracy = evaluate(model, make(val))"), ("def show", "def make(x): return x\n\ndef show")],
        [("in loader:", "in make(loader):"), ("def show", "def make(x): return x\n\ndef show")],
        [("def show", "class Net(torch.nn.Module):\n    def forward(self, x): self.a.eval(); return x\n\ndef show")],
        [(CALL, "accuracy = evaluate(model, accuracy)")],
        [("# REST", "run.log(n=val.total)  # ADDED"), ("model(x).argmax", "loader(x).argmax")],
    ],
)  # fmt: skip
def test_what_else_may_depend_on_a_call_has_it_run(changes: list[tuple[str, str]]) -> None:
    assert not any(text.startswith("accuracy =") for text in texts(*changes))


@pytest.mark.parametrize(
    "statement",
    [
        "run.log(accuracy=evaluate(model, val))",
        "print(evaluate(model, val))",
        "evaluate(model, val)",
        "best = max(best, 100 * evaluate(model, val))",
    ],
)
def test_the_call_may_stand_within_a_statement_that_only_tells(statement: str) -> None:
    (piece,) = pieces((CALL, statement))
    assert piece.acts == DONE


@pytest.mark.parametrize(
    "code",
    [
        "logger.info(right)",
        "found = []; found.append(x)",
        "meter = Meter(); meter.count(x)",
        "torch.cuda.empty_cache()",
        "mean = x * 2; mean += 1",
    ],
)
def test_what_is_done_to_objects_of_its_own_or_tells_is_passed_over(code: str) -> None:
    assert texts(
        ("# INSIDE", code), ("def show", "class Meter:\n    def count(self, x): pass\n\ndef show")
    ) == [CALL]


def test_log_statements_in_what_is_passed_over_are_not_missed() -> None:
    (piece,) = pieces(("# INSIDE", "florlog.log(right=right)"))
    text = textwrap.dedent(SCRIPT).splitlines()
    assert piece.left.told == {(FILE, 1 + next(i for i, line in enumerate(text) if "# INSIDE" in line))}


@pytest.mark.parametrize(
    ("changes", "acts"),
    [
        ([("in loader:", "in enumerate(loader):")], DONE),
        ([("in loader:", "in zip(loader, loader):")], (DONE[0], *[Items("val", whole=False)] * 2, DONE[2])),
        ([("# INSIDE", "if seen: break")], (DONE[0], Items("val", whole=False), DONE[2])),
        ([("evaluate(model, val)", "evaluate(loader=val, model=model)")], DONE),
        ([("in loader:", "in range(3):")], (DONE[0], DONE[2])),
        (
            [("model, val)", "model, parts(val, 2))"),
             ("def show", "def parts(x, n):\n  for y in x: yield y\n\ndef show")],
            (Items("val", whole=False), DONE[0], DONE[2]),
        ),
        (
            [("    model.eval()\n", "    was = model.training\n    model.eval()\n"), ("rain()\n", "rain(was)\n")],
            (*DONE[:2], Mode("model", training=None, first=False)),
        ),
        ([("def show", "def eval(x): x.append(1)\n\ndef show")], DONE),
        ([("def show", "def val(x): x.append(1)\n\ndef show")], DONE),
        (
            [("in loader:", "in train_set[3].data:"), ("def main(", "train_set = []\n\ndef main(")],
            (DONE[0], Items("train_set[3].data", whole=True), DONE[2]),
        ),
        ([("model.eval()\n", "shown = model(loader)\n    model.eval()\n")],
         (Mode("model", training=False, first=False), *DONE[1:])),
    ],
)  # fmt: skip
def test_what_is_left_is_what_certainly_happens(
    changes: list[tuple[str, str]], acts: tuple[Mode | Items, ...]
) -> None:
    (piece,) = pieces(*changes)
    assert piece.acts == acts


LOOP = """right = 0
            model.eval()
            for x, y in val:
                right += (model(x).argmax(1) == y).sum().item()
                # INSIDE LOOP
            model.train()
            run.log(right=right)"""


def test_a_plain_loop_is_a_piece() -> None:
    (piece,) = pieces((CALL, LOOP))
    assert piece.text == "for x, y in val:"
    assert piece.acts == (Items("val", whole=True),)
    assert piece.left.stale == {("main", name) for name in ("right", "x", "y")}


@pytest.mark.parametrize(
    "code",
    [
        "history.append(right)",
        "for z in x: right += z",
        "florlog.log(right=right)  # ADDED",
        "run.log(right=right) if y else torch.rand(1)",
    ],
)
def test_a_plain_loop_that_something_depends_on_is_run(code: str) -> None:
    assert texts((CALL, LOOP.replace("# INSIDE LOOP", code))) == []


def test_a_method_is_passed_over_with_what_its_object_holds() -> None:
    text = """
        import torch
        import florlog

        class Trainer:
            def __init__(self, model, val):
                self.model, self.val = model, val

            @torch.no_grad()
            def evaluate(self):
                self.model.eval()
                right = 0
                for x in self.val:
                    right += self.model(x).sum().item()
                self.model.train()
                return right

            def fit(self, run):
                for epoch in run.loop("epoch", range(3)):
                    right = self.evaluate()
                    run.log(right=right)
                    run.log(w=self.model.weight)  # ADDED
        """
    text = textwrap.dedent(text)
    added = {FILE: frozenset({1 + next(i for i, line in enumerate(text.splitlines()) if "ADDED" in line)})}
    program = ProgramAnalysis({FILE: text}, FILE)
    assert program.pieces(program.skipping(added)) == []  # the model may have changed, and is not tracked
    text += "def main(run, t):\n    run.track(model=t.model)\n"
    program = ProgramAnalysis({FILE: text}, FILE)
    (piece,) = program.pieces(program.skipping(added))
    assert [act.of for act in piece.acts] == ["self.model", "self.val", "self.model"]
