"""Which gradients nothing reads: the analysis against programs that are executed and say what they do."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from florlog.source.carry.gradients import cleared_before_read

CLEAR = ("optimizer.zero_grad()", "optimizer.zero_grad(set_to_none=True)", "clear()")
READ = (
    "loss.backward()", "optimizer.step()", "print(p.grad)", "optimizer.zero_grad(set_to_none=False)", "read()",
    "clip_grad_norm_(p)", "scaler.step(optimizer)", "x = [p.grad for _ in range(1)]", "p.grad = p",
)  # fmt: skip
NEITHER = ("x = 1", "scheduler.step()", "env.step(1)", "neither()", "print(1)", "x = optimizer")
HEADS = ("for _ in loop({n}):", "if yes():", "with context():", "try:", "while yes():")


class Recorder:
    """What a program's objects are: everything done with gradients is noted, and every boundary of a loop."""

    def __init__(self, choices: list[bool]) -> None:
        self.events: list[Any] = []
        self._choices = choices
        self._asked = 0

    def yes(self) -> bool:
        self._asked += 1
        return self._asked < 60 and self._choices[self._asked % len(self._choices)]

    def loop(self, count: int) -> Iterator[int]:
        stack = self._stack()
        for index in range(count):
            self.events.append((stack, False))
            yield index
        self.events.append((stack, True))

    def _stack(self) -> tuple[tuple[str, str, int], ...]:
        found = []
        frame: Any = sys._getframe(2)
        while frame is not None and frame.f_code.co_filename == "program":
            found.append(("program", frame.f_code.co_qualname, frame.f_lineno))
            frame = frame.f_back
        return tuple(found)


class Gradients:
    """A stub of whatever holds gradients."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def zero_grad(self, set_to_none: bool = True) -> None:
        self._recorder.events.append("cleared" if set_to_none else "read")

    def backward(self) -> None:
        self._recorder.events.append("read")

    @property
    def grad(self) -> int:
        self._recorder.events.append("read")
        return 0

    @grad.setter
    def grad(self, value: Any) -> None:
        self._recorder.events.append("read")

    def step(self, *_: Any) -> None:
        self._recorder.events.append("read")


class Other:
    """A stub of what has a step that reads no gradient."""

    def step(self, *_: Any) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


PLAIN = st.sampled_from([*CLEAR, *CLEAR, *READ, *NEITHER, *NEITHER])


def blocks(depth: int, plain: st.SearchStrategy[str] = PLAIN) -> st.SearchStrategy[str]:
    if depth == 0:
        return plain
    inner = st.lists(blocks(depth - 1, plain), min_size=1, max_size=3).map("\n".join)
    head = st.sampled_from(HEADS).flatmap(lambda head: st.integers(0, 3).map(lambda n: head.format(n=n)))

    def nested(head: str, body: str, other: str | None) -> str:
        text = f"{head}\n{textwrap.indent(body, '    ')}"
        if head == "try:":
            return text + f"\nfinally:\n{textwrap.indent(other or 'pass', '    ')}"
        return (
            text + f"\nelse:\n{textwrap.indent(other, '    ')}" if other and head.startswith("if") else text
        )

    return st.one_of(plain, st.builds(nested, head, inner, st.none() | inner))


def function(name: str, body: str) -> str:
    return f"def {name}():\n{textwrap.indent(body, '    ')}"


def program(helper: str, inner: str, main: str) -> str:
    return "\n".join([
        function("clear", "optimizer.zero_grad()"),
        function("read", f"{helper}\nloss.backward()"),
        function("neither", "x = 1"),
        function("epoch", f"for _ in loop(2):\n{textwrap.indent(inner, '    ')}"),
        function("main", f"for _ in loop(3):\n{textwrap.indent(main, '    ')}\nneither()"),
        "main()",
    ])  # fmt: skip


programs = st.builds(
    program,
    blocks(1, st.sampled_from(["optimizer.zero_grad()", "x = 1", "loss.backward()", "x = 2"])),
    st.lists(blocks(2), min_size=1, max_size=3).map("\n".join),
    st.lists(blocks(2) | st.just("epoch()"), min_size=1, max_size=3).map("\n".join),
)


def executed(source: str, choices: list[bool]) -> list[Any]:
    """What a program did, and where it stood at the boundaries of its loops."""
    recorder = Recorder(choices)
    gradients, other = Gradients(recorder), Other()
    names = {
        "optimizer": gradients, "loss": gradients, "p": gradients, "scaler": gradients, "scheduler": other,
        "env": other, "yes": recorder.yes, "loop": recorder.loop, "context": lambda: other, "x": 0,
        "print": lambda *_: None, "clip_grad_norm_": lambda p: p.grad,
    }  # fmt: skip
    exec(compile(source, "program", "exec"), names)
    return recorder.events


@settings(max_examples=400, deadline=None)
@given(source=programs, choices=st.lists(st.booleans(), min_size=1, max_size=7))
@example(
    source=program(
        "x = 1",
        "clear()",
        "clear()\ntry:\n    for _ in loop(3):\n        clear()\nfinally:\n    print(p.grad)",
    ),
    choices=[True],
)
@example(source=program("x = 1", "if yes():\n    clear()\nloss.backward()", "epoch()"), choices=[False])
def test_what_is_left_out_is_never_read_first(source: str, choices: list[bool]) -> None:
    events = executed(source, choices)
    for at, event in enumerate(events):
        if isinstance(event, str):
            continue
        stack, end = event
        following = next((later for later in events[at + 1 :] if isinstance(later, str)), None)
        if following == "read":
            assert not cleared_before_read({"program": source}, stack, end=end), (stack, end)


STEP = "optimizer.zero_grad()\nloss = f(model(x), y)\nloss.backward()\noptimizer.step()"
NEST = "for epoch in range(3):\n    for x, y in loader:\n{step}\n{after}"


def nest(step: str = STEP, after: str = "scheduler.step()\nprint(evaluate(model))") -> str:
    return NEST.format(step=textwrap.indent(step, " " * 8), after=textwrap.indent(after, " " * 4))


@pytest.mark.parametrize(
    ("source", "inside", "end"),
    [
        (nest(), True, True),
        (nest("for p in model.parameters():\n    p.grad = None\n" + STEP.partition("\n")[2]), True, True),
        (nest(f"with context():\n{textwrap.indent(STEP, '    ')}"), True, True),
        (nest(STEP.replace("optimizer.zero_grad()\n", "") + "\noptimizer.zero_grad()"), False, False),
        (nest(after="print(model.weight.grad.norm())"), False, False),
        (nest("print(model.weight.grad)\n" + STEP), False, False),
        (nest(STEP + "\nother.zero_grad()"), False, False),
    ],
)
def test_the_usual_programs(source: str, inside: bool, end: bool) -> None:
    stack = [("program", "<module>", 2)]
    assert cleared_before_read({"program": source}, stack, end=False) is inside
    assert cleared_before_read({"program": source}, stack, end=True) is end


def test_through_the_methods_of_a_trainer() -> None:
    source = textwrap.dedent("""
        class Trainer:
            def fit(self):
                for epoch in range(3):
                    self.run_epoch()
                    self.validate()
            def run_epoch(self):
                for batch in self.loader:
                    self.step(batch)
            def step(self, batch):
                self.optimizer.zero_grad()
                self.loss(batch).backward()
                self.optimizer.step()
            def validate(self):
                return [self.model(batch) for batch in self.other]
        Trainer().fit()
    """)
    stack = [("program", "Trainer.run_epoch", 8), ("program", "Trainer.fit", 5), ("program", "<module>", 16)]
    assert cleared_before_read({"program": source}, stack, end=False)
    assert cleared_before_read({"program": source}, stack, end=True)
    assert not cleared_before_read({"program": "x ="}, stack, end=False)
    assert not cleared_before_read({}, stack, end=False)
