"""What a loop carries is enough to go on from its head, checked by going on from it."""

from __future__ import annotations

import ast
import copy
import textwrap
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from florlog.source.carry.carried import carried_names
from tests.source.random_modules import BLOCKS, LEAVES, indented


def carried(source: str, marker: str = "HERE", qualname: str = "<module>", first: int = 1) -> set[str]:
    text = textwrap.dedent(source)
    line = next(i for i, row in enumerate(text.splitlines(), 1) if marker in row)
    return set(carried_names(text, qualname, first, line))


def test_a_typical_training_loop_carries_its_counters_and_not_its_temporaries() -> None:
    assert carried("""
        import torch, florlog
        best, seen, lr, unused = 1e9, [], 0.1, 3
        size = 5
        for epoch in run.loop("epoch", range(20)):  # HERE
            total = 0.0
            for x in data:
                loss = x * size
                total += loss
            seen.append(total)
            if total < best:
                best = total
            unused = 4
        print(best, seen, lr, size)
    """) >= {"best", "seen"}
    names = carried("""
        best, seen, size = 1e9, [], 5
        for epoch in run.loop("epoch", range(20)):  # HERE
            total = 0.0
            for x in range(3):
                total += x * size
            seen.append(total)
            best = min(best, total)
            unused = 4
        print(best, size)
    """)
    assert {"best", "seen"} <= names <= {"best", "seen", "size"}


def test_the_inner_head_carries_what_the_outer_body_made_before_it() -> None:
    source = """
        def train(run, data):
            best = 0
            for epoch in run.loop("epoch", range(2)):
                total = 0
                for step in run.loop("step", range(3)):  # HERE
                    total += step
                best = max(best, total + epoch)
            return best
    """
    assert carried(source, "HERE", "train", 2) >= {"best", "total", "epoch"}
    assert "total" not in carried(source, 'epoch"', "train", 2)


def test_a_target_read_after_the_loop_is_carried() -> None:
    assert carried("for e in run.loop('e', x):  # HERE\n    pass\nprint(e)\n") == {"e"}
    assert carried("for e in run.loop('e', x):  # HERE\n    print(e)\n") == set()


def test_an_object_changed_through_another_name_is_carried_under_both() -> None:
    names = carried("""
        a = []
        b = a
        c = {"k": a}
        d = [1]
        for e in run.loop("e", range(2)):  # HERE
            b.append(e)
        print(a, c, d)
    """)
    assert names == {"a", "c"} | {"b"}


def test_an_object_handed_out_before_the_loop_is_carried() -> None:
    assert "a" in carried("a = []\nregister(a)\nfor e in run.loop('e', x):  # HERE\n    fire()\nprint(a)\n")


def test_names_that_nested_functions_use_are_carried() -> None:
    source = """
        def train(run):
            count = 0
            seen = []
            def step():
                nonlocal count
                count += 1
                seen.append(count)
            for e in run.loop("e", range(2)):  # HERE
                step()
    """
    assert carried(source, "HERE", "train", 2) >= {"count", "seen"}


def test_globals_that_functions_use_are_carried_by_the_module() -> None:
    source = """
        import math
        history, other = [], 1
        def train():
            global other
            other = 2
            history.append(math.pi)
        train()  # HERE
    """
    assert carried(source) == {"history", "other"}


def test_a_call_line_outside_loops_carries_what_came_before_it_and_its_arguments() -> None:
    source = """
        def main(run):
            history = []
            count = 1
            result = train(run, history)  # HERE
            later = 3
            print(history, result, count, later)
    """
    assert carried(source, "HERE", "main", 2) >= {"history", "count"}
    assert "later" not in carried(source, "HERE", "main", 2)


def test_the_line_of_run_iteration_stands_for_the_loop_around_it() -> None:
    source = """
        i, total = 0, 0
        while i < 3:
            extra = 1
            with run.iteration("step", i):  # HERE
                total += extra
            i += 1
        print(total)
    """
    assert carried(source) >= {"i", "total", "extra"}


def test_what_only_a_handler_or_finally_reads_is_live_inside_try() -> None:
    source = """
        try:
            for e in run.loop("e", x):  # HERE
                last = e
                note = e
                last = step()
        except ValueError:
            print(last)
        finally:
            print(note)
    """
    assert carried(source) >= {"last", "note"}


def test_a_name_read_only_after_a_break_is_live() -> None:
    loop = "for e in run.loop('e', x):  # HERE\n    if c:\n        break\n    a = e\nelse:\n    a = 1\n"
    source = f"a = 0\n{loop}print(a)\n"
    assert "a" in carried(source)


def test_a_name_that_a_swallowed_exception_leaves_as_it_was_is_live() -> None:
    source = "a = 0\nfor e in run.loop('e', x):  # HERE\n    with quiet():\n        a = f()\n    print(a)\n"
    assert "a" in carried(source)


def test_an_object_given_to_a_call_may_have_changed() -> None:
    assert "a" in carried("a = [1]\nfor e in run.loop('e', x):  # HERE\n    y = update(a)\nprint(a)\n")


def test_decorated_functions_and_methods_are_found_by_their_first_line() -> None:
    source = """
        class T:
            @deco
            def fit(self, n):
                for e in run.loop("e", n):  # HERE
                    n += 1
    """
    assert carried(source, "HERE", "T.fit", 3) == {"n"}
    with pytest.raises(LookupError):
        carried(source, "HERE", "T.fit", 4)


def test_code_without_statements_carries_nothing() -> None:
    assert carried("f = lambda: run.loop('e', x)  # HERE\n", "HERE", "<lambda>", 1) == set()


# -- by execution ----------------------------------------------------------------------------------


class Stop(BaseException):
    pass


class Machine:
    """Runs a program whose loop L hands out items; records at its k-th head, or goes on from there."""

    def __init__(self, restore: dict[str, Any] | None, names: frozenset[str], cut: tuple[int, ...]) -> None:
        self.out: list[str] = []
        self.space: dict[str, Any] = {}
        self.restore, self.names, self.cut = restore, names, cut
        self.image: dict[str, Any] | None = None
        self.tail = 0
        self.heads: dict[str, int] = {}
        self.going_on = restore is None
        self.ticks = 0
        self.kept: list[Any] = []

    def loop(self, name: str, depth: int) -> Any:
        def at_cut(index: int) -> bool:
            self.heads[name] = index
            heads = tuple(self.heads[n] for n in ("L", "M")[: depth + 1])
            return depth == len(self.cut) - 1 and heads == self.cut

        first = self.cut[depth] if not self.going_on and depth < len(self.cut) else 0
        for index in range(first, 4):
            if at_cut(index):
                self.meet_cut()
            if index == 3:
                return
            yield index

    def meet_cut(self) -> None:
        if self.restore is None:
            if self.image is None:
                present = {n: self.space[n] for n in self.names if n in self.space}
                self.image = copy.deepcopy({"names": present, "ticks": self.ticks})
                self.tail = len(self.out)
        elif not self.going_on:
            image = copy.deepcopy(self.restore)
            for name in self.names:
                self.space.pop(name, None)
            self.space.update(image["names"])
            self.ticks, self.going_on = image["ticks"], True
            self.out.clear()

    def tick(self) -> bool:
        self.ticks += 1
        if self.ticks > 40:
            raise Stop
        return self.ticks % 3 != 0

    def emit(self, value: Any) -> None:
        self.out.append(repr(value))

    def run(self, source: str) -> list[str]:
        class Quiet:
            def __enter__(self) -> None: ...
            def __exit__(self, kind: type | None, *rest: object) -> bool:
                return kind is not None and issubclass(kind, Exception)

        def num(value: Any) -> int:
            return value if isinstance(value, int) else len(value)

        def touch(value: Any) -> None:
            if isinstance(value, list) and len(value) < 9:
                value.append(7)

        self.space.update(
            emit=self.emit, num=num, touch=touch, keep=lambda v: v, tick=self.tick, quiet=Quiet,
            items=lambda v: v if isinstance(v, list) else [v], L=self.loop,
        )  # fmt: skip
        try:
            exec(compile(source, "p.py", "exec"), self.space)
        except (Exception, Stop) as error:
            self.out.append(type(error).__name__)
        return self.out


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(LEAVES, BLOCKS, BLOCKS, BLOCKS, st.booleans(), st.integers(0, 3), st.integers(0, 3))
def test_going_on_from_the_carried_names_equals_the_uninterrupted_run(
    head: list[str], before: list[str], body: list[str], after: list[str], nested: bool, i: int, k: int
) -> None:
    start = [line for line in head if not any(w in line for w in ("break", "continue"))]
    lines = ["a = [0]; b = a; c = 1", *start]
    inner = ["for y in L('M', 1):", *indented(body)] if nested else body
    lines += ["for x in L('L', 0):", *indented([*before, *inner])]
    lines += ["for _ in range(2):", *indented(after)]
    lines += [f"try: emit({name})\nexcept NameError: emit('unbound')" for name in "abcdxy"]
    source = "\n".join(lines)
    try:
        ast.parse(source)
        compile(source, "p.py", "exec")
    except SyntaxError:
        assume(False)
    place = "L('M'" if nested else "L('L'"
    line = next(n for n, row in enumerate(source.splitlines(), 1) if place in row)
    names = carried_names(source, "<module>", 1, line)
    cut = (min(i, 2), k) if nested else (k,)
    whole = Machine(None, names, cut)
    expected = whole.run(source)
    assume(whole.image is not None)
    again = Machine(whole.image, names, cut)
    actual = again.run(source)
    assume(again.going_on)
    assert actual == expected[whole.tail :], (source, sorted(names), cut)
