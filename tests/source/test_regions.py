"""Where a statement may run: never too few segments, and not the obvious wrong ones."""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from florlog.source.names.calls import log_calls
from florlog.source.reach.positions import LoopSite, Stack
from florlog.source.reach.regions import Location, ProgramAnalysis

FILE = "train.py"


class Recorder:
    """Records, for one execution, each loop iteration's children and where each log call ran."""

    def __init__(self) -> None:
        self.sites: set[tuple[str, int, str]] = set()
        self.seen: list[tuple[LoopSite | None, list[Stack], list[tuple[int, Location]]]] = []
        self.open: list[
            tuple[LoopSite | None, list[Stack], list[tuple[int, Location]], FrameType | None]
        ] = []

    def _stack(self, frame: FrameType | None) -> Stack:
        found: list[LoopSite] = []
        parent = self.open[-1][3]
        while frame is not None:
            if frame.f_code.co_filename.endswith(".py") and "/" not in frame.f_code.co_filename:
                found.append((frame.f_code.co_filename, frame.f_code.co_qualname, frame.f_lineno))
            if frame is parent:
                break
            frame = frame.f_back
        return tuple(found)

    def begin(self, loop: LoopSite | None, frame: FrameType | None) -> None:
        self.open.append((loop, [], [], frame))

    def end(self) -> None:
        loop, children, ran, _ = self.open.pop()
        self.seen.append((loop, children, ran))

    def loop(self, name: str, items: Any) -> Iterator[Any]:
        frame = sys._getframe(1)
        stack = self._stack(frame)
        self.open[-1][1].append(stack)

        def iterate() -> Iterator[Any]:
            for item in items:
                self.begin(stack[0], frame)
                yield item
                self.end()

        return iterate()

    def log(self, **values: Any) -> None:
        frame = sys._getframe(1)
        code = frame.f_code
        _, children, ran, _ = self.open[-1]
        ran.append((len(children), Location(code.co_filename, frame.f_lineno, code.co_qualname)))


def execute(source: str, modules: dict[str, str] | None = None) -> tuple[ProgramAnalysis, Recorder, str]:
    text = textwrap.dedent(source)
    recorder = Recorder()
    space: dict[str, Any] = {"__name__": "__main__", "run": recorder}
    code = compile(text, FILE, "exec", dont_inherit=True)
    holder: list[FrameType | None] = [None]

    def first_frame(frame: FrameType, event: str, arg: object) -> None:
        if holder[0] is None and frame.f_code is code:
            holder[0] = frame
            recorder.begin(None, frame)

    sys.setprofile(first_frame)
    try:
        exec(code, space)
    finally:
        sys.setprofile(None)
    recorder.end()
    return ProgramAnalysis({FILE: text}, FILE), recorder, text


def line_of(text: str, marker: str) -> int:
    return next(i for i, line in enumerate(text.splitlines(), 1) if f"# {marker}" in line)


def segments(source: str) -> dict[str, dict[str, list[frozenset[int]]]]:
    """For each marked log call: loop name ("" for the run) -> the answer for each of its iterations.

    Each answer is checked against what really ran."""
    program, recorder, text = execute(source)
    lines = text.splitlines()
    sites: dict[str, Location] = {}
    for _, _, ran in recorder.seen:
        for _, site in ran:
            if found := re.search(r"# (\w+)$", lines[site.line - 1]):
                sites[found[1]] = site
    answers: dict[str, dict[str, list[frozenset[int]]]] = {}
    for marker, site in sites.items():
        for loop, children, ran in recorder.seen:
            answer = program.may_run(site, loop, children)
            assert {segment for segment, where in ran if where == site} <= answer, (marker, loop, children)
            name = re.search(r'loop\("(\w+)"', lines[loop[2] - 1])[1] if loop else ""  # type: ignore[index]
            answers.setdefault(marker, {}).setdefault(name, []).append(answer)
    return answers


NESTED = """
    def evaluate(m):
        run.log(v=0)                                   # in_evaluate
        for v in run.loop("val", range(2)):
            run.log(v=v)                               # in_val
            m(v)
        run.log(v=1)                                   # after_val
    class Net:
        def __call__(self, x):
            return self.forward(x)
        def forward(self, x):
            run.log(h=x)                               # in_forward
            return x
    def train_epoch(m):
        run.log(a=1)                                   # start_of_train
        for s in run.loop("step", range(2)):
            run.log(s=s)                               # in_step
            m(s)
        run.log(a=2)                                   # end_of_train
    def main():
        m = Net()
        for epoch in enumerate(run.loop("epoch", range(2))):
            run.log(e=1)                               # start
            train_epoch(m)
            run.log(e=2)                               # middle
            evaluate(m)
            run.log(e=3)                               # end
        run.log(done=1)                                # last
    run.log(first=1)                                   # first
    main()
"""


def test_statements_around_two_inner_loops_lie_in_their_own_segments() -> None:
    found = segments(NESTED)
    epochs = {marker: answers["epoch"][0] for marker, answers in found.items()}
    assert epochs["start"] == epochs["start_of_train"] == {0}
    assert epochs["middle"] == epochs["end_of_train"] == epochs["in_evaluate"] == {1}
    assert epochs["end"] == epochs["after_val"] == {2}
    assert epochs["in_step"] == epochs["in_val"] == epochs["first"] == epochs["last"] == set()


def test_a_function_called_only_from_a_childs_body_is_not_the_parents() -> None:
    found = segments(NESTED)["in_forward"]
    assert found["step"] == [{0}] * 4
    assert found["val"] == [{0}] * 4
    assert found["epoch"] == [set()] * 2


def test_the_run_itself_is_cut_by_its_loops() -> None:
    found = segments(NESTED)
    assert found["first"][""] == [{0}]
    assert found["last"][""] == [{1}]
    assert found["in_step"][""] == [set()]


CASES: dict[str, tuple[str, dict[str, set[int]]]] = {
    "plain loop around the child": ('''
        for r in range(2):
            run.log(a=1)                               # a
            for x in run.loop("x", range(2)):
                pass
            run.log(b=1)                               # b
        run.log(c=1)                                   # c
    ''', {"a": {0, 1, 2}, "b": {0, 1, 2}, "c": {2}}),
    "branches": ('''
        for k in run.loop("k", range(2)):
            if k == 1:
                for x in run.loop("x", range(1)):
                    pass
            else:
                run.log(a=1)                           # a
            run.log(b=1)                               # b
    ''', {}),
    "try": ('''
        try:
            run.log(a=1)                               # a
            for x in run.loop("x", range(1)):
                pass
            raise KeyError
        except KeyError:
            run.log(b=1)                               # b
        finally:
            run.log(c=1)                               # c
    ''', {"a": {0}, "b": {1}, "c": {1}}),
    "a module put into eval mode": ('''
        class Model:
            def eval(self):
                return self

        model = Model()

        def f():
            for x in run.loop("x", range(1)):
                model.eval()
                [int][0](1)
            run.log(a=1)                               # a

        f()
    ''', {"a": {1}}),
    "else of a loop": ('''
        for x in run.loop("x", range(1)):
            pass
        else:
            run.log(a=1)                               # a
    ''', {"a": {1}}),
    "one function called twice": ('''
        def f(n):
            run.log(n=n)                               # a
            for x in run.loop("x", range(1)):
                pass
        f(1)
        f(2)
    ''', {"a": {0, 1}}),
    "one statement with two calls": ('''
        def f(n):
            run.log(n=n)                               # a
            for x in run.loop("x", range(1)):
                pass
        (f(1), f(2))
    ''', {"a": {0, 1, 2}}),
    "calls in a comprehension": ('''
        def f(n):
            run.log(n=n)                               # a
            for x in run.loop("x", range(1)):
                pass
        [f(i) for i in range(3)]
    ''', {"a": {0, 1, 2, 3}}),
    "recursion": ('''
        def f(n):
            run.log(n=n)                               # a
            if n:
                f(n - 1)
            for x in run.loop("x", range(1)):
                run.log(x=n)                           # b
        f(2)
        run.log(z=1)                                   # c
    ''', {"b": set(), "c": {3}}),
    "a callback": ('''
        def hook(x):
            run.log(x=x)                               # a
        hooks = [hook]
        run.log(y=1)                                   # b
        for x in run.loop("x", range(1)):
            pass
        hooks[0](1)
    ''', {"b": {0}}),
    "a generator run later": ('''
        def g():
            run.log(x=1)                               # a
            yield 1
        it = g()
        for x in run.loop("x", range(1)):
            pass
        next(it)
    ''', {}),
    "a generator that holds the loop": ('''
        def batches():
            run.log(p=1)                               # p
            for x in run.loop("x", range(2)):
                yield x
        for b in batches():
            run.log(b=b)                               # b
    ''', {}),
    "an eagerly consumed loop": ('''
        for x in list(run.loop("x", range(2))):
            run.log(x=x)                               # a
    ''', {}),
    "a lazily mapped function": ('''
        def f(x):
            run.log(x=x)                               # a
            return x
        for x in map(f, run.loop("x", range(2))):
            run.log(x=x)                               # b
    ''', {"b": set()}),
    "a loop kept in a variable": ('''
        it = run.loop("x", range(2))
        for x in it:
            run.log(x=x)                               # a
    ''', {}),
    "dataset items": ('''
        class Data:
            def __getitem__(self, i):
                run.log(i=i)                           # a
                if i > 1:
                    raise IndexError
                return i
        for x in run.loop("x", Data()):
            run.log(x=x)                               # b
    ''', {"b": set()}),
    "context managers": ('''
        class Manager:
            def __enter__(self):
                run.log(i=1)                           # a
            def __exit__(self, *e):
                run.log(o=1)                           # b
        with Manager():
            for x in run.loop("x", range(2)):
                pass
        run.log(z=1)                                   # c
    ''', {"c": {1}}),
    "a property": ('''
        class C:
            @property
            def p(self):
                run.log(i=1)                           # a
                return 1
        c = C()
        for x in run.loop("x", range(2)):
            pass
        c.p
    ''', {"a": {1}}),
    "a closure returned and stored": ('''
        def make():
            def inner():
                run.log(i=1)                           # a
            return inner
        f = make()
        for x in run.loop("x", range(2)):
            f()
        class Holder: pass
        h = Holder()
        h.g = f
        h.g()
    ''', {}),
    "several statements on a line": ('''
        def f():
            run.log(i=1)                               # a
        f(); x = [0 for _ in run.loop("x", range(2))]; f()
    ''', {}),
    "a constructor of a base class": ('''
        class Base:
            def __init__(self):
                run.log(i=1)                           # a
        class Sub(Base):
            pass
        for x in run.loop("x", range(2)):
            Sub()
    ''', {"a": set()}),
    "a method of an unknown object": ('''
        class A:
            def fit(self):
                run.log(i=1)                           # a
                for x in run.loop("x", range(2)):
                    self.one()
                run.log(i=2)                           # b
            def one(self):
                run.log(i=3)                           # c
        def go(obj):
            obj.fit()
        go(A())
    ''', {"a": {0}, "b": {1}, "c": set()}),
    "getattr by a computed name": ('''
        class A:
            def one(self):
                run.log(i=3)                           # a
        run.log(b=1)                                   # b
        for x in run.loop("x", range(1)):
            pass
        name = "o" + "ne"
        getattr(A(), name)()
    ''', {"b": {0}}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_segment_that_ran_is_reported(case: str) -> None:
    source, expected = CASES[case]
    found = segments(source)
    assert found
    for marker, answer in expected.items():
        assert found[marker][""] == [answer], marker


def test_a_loop_of_two_levels_reports_for_each_iteration_its_own_children() -> None:
    found = segments(CASES["branches"][0])
    assert found["a"]["k"] == [{0}, {0, 1}]
    assert found["b"]["k"] == [{0}, {1}]


ITERATION = """
def main(run, batches):
    run.log(a=1)                                       # before
    while True:
        run.log(c=1)                                   # between
        with run.iteration("step", 1):
            run.log(b=1)                               # inside
            for x in run.loop("inner", batches):
                pass
            run.log(b=1)                               # tail
    run.log(d=1)                                       # after
main(None, [])
"""


def test_with_iteration_bounds_its_region_by_the_while_around_it() -> None:
    program = ProgramAnalysis({FILE: ITERATION}, FILE)

    def ask(marker: str, loop: LoopSite | None, *children: Stack) -> frozenset[int]:
        return program.may_run(Location(FILE, line_of(ITERATION, marker), "main"), loop, children)

    module = (FILE, "<module>", len(ITERATION.splitlines()))
    step, inner = (FILE, "main", 6), (FILE, "main", 8)
    assert ask("before", None, (step, module)) == {0}
    assert ask("between", None, (step, module)) == {0, 1}
    assert ask("after", None, (step, module)) == {1}
    assert ask("inside", None, (step, module)) == set()
    assert ask("inside", step, (inner,)) == {0}
    assert ask("tail", step, (inner,)) == {1}
    assert ask("between", step, (inner,)) == {0, 1}
    assert ask("before", step, (inner,)) == set()
    assert ask("inside", inner) == set()
    assert [loop.call.name for loop in program.loops] == ["step", "inner"]


def test_code_is_followed_into_local_modules() -> None:
    files = {
        "/p/train.py": "from tools import fit\nimport florlog\nfor e in florlog.loop('e', x):\n    fit(e)\n",
        "/p/tools.py": "import florlog\ndef fit(e):\n    florlog.log(a=1)\n"
        "    for s in florlog.loop('s', x):\n        florlog.log(b=1)\n    florlog.log(c=1)\n",
    }
    program = ProgramAnalysis(files, "/p/train.py")
    epoch, step = ("/p/train.py", "<module>", 3), ("/p/tools.py", "fit", 4)
    child: Stack = (step, ("/p/train.py", "<module>", 4))
    answers = [
        [program.may_run(Location("/p/tools.py", line, "fit"), loop, kids) for line in (3, 5, 6)]
        for loop, kids in ((None, []), (epoch, [child]), (step, []))
    ]
    assert answers == [[set()] * 3, [{0}, set(), {1}], [set(), {0}, set()]]


def test_what_cannot_be_located_may_run_anywhere() -> None:
    program = ProgramAnalysis({FILE: "for e in run.loop('e', [1]):\n    pass\n"}, FILE)
    site = Location(FILE, 2, "nowhere")
    assert program.may_run(site, None, [((FILE, "<module>", 1),)]) == {0, 1}
    assert program.may_run(Location(FILE, 2, "<module>"), (FILE, "<module>", 9), []) == {0}


BODY = """
import florlog


def helper(x):
    florlog.log(inside=x)
    return x


with florlog.run("r") as run:
    for step in run.loop("step", range(9)):
        a = step
        {}
        b = a + 1
        c = b + 1
"""


@pytest.mark.parametrize(
    ("code", "names", "line", "points"),
    [
        ("run.log(v=a)", "v", 13, 1),
        ("if a:\n            run.log(v=a)\n            a += 1", "v", 13, 2),
        ("for i in range(3):\n            run.log(v=i)", "v", 13, 1),
        ("while a:\n            a -= 1\n            run.log(v=a)", "v", 13, 1),
        ("a = helper(a)", "inside", 13, 1),
    ],
)
def test_an_iteration_can_be_left_where_the_statement_cannot_run_again(
    code: str, names: str, line: int, points: int
) -> None:
    text = BODY.format(code)
    program = ProgramAnalysis({"/s.py": text}, "/s.py")
    (call,) = [call for call in log_calls(ast.parse(text)) if names in call.names]
    site = Location("/s.py", call.line, call.qualname)
    found = program.exit((site,), ("/s.py", "<module>", 11), (), 0)
    assert found is not None
    assert (found.line, len(found.points)) == (line, points)
    assert 0 < found.share < 1


@pytest.mark.parametrize(
    "later", ["c = helper(a)", "run.log(w=helper)\n        a()", "c = [helper(i) for i in (1, 2)]"]
)
def test_an_iteration_is_left_only_behind_the_last_place_that_may_run_the_statement(later: str) -> None:
    text = BODY.format("a = helper(a)").replace("c = b + 1", later)
    program = ProgramAnalysis({"/s.py": text}, "/s.py")
    assert program.exit((Location("/s.py", 6, "helper"),), ("/s.py", "<module>", 11), (), 0) is None


def test_a_method_named_eval_gives_no_function_of_the_program() -> None:
    text = textwrap.dedent("""\
        import florlog

        def main(model):
            total = 0
            for epoch in florlog.loop("epoch", range(3)):
                model.eval()

        main(make())
    """)
    program = ProgramAnalysis({FILE: text}, FILE)
    epoch: LoopSite = (FILE, "main", 5)
    assert program.may_run(Location(FILE, 4, "main"), epoch, []) == frozenset()
    dynamic = ProgramAnalysis({FILE: text.replace("model.eval()", "eval(model)()")}, FILE)
    assert dynamic.may_run(Location(FILE, 4, "main"), epoch, []) == {0}
