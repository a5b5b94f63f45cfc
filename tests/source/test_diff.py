"""An edit is read as additions wherever additions alone explain it, and otherwise named."""

from __future__ import annotations

import ast
import textwrap
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from florlog.source.diff.source_diff import SourceDiff, compare
from florlog.source.edit.rewrite import statements
from florlog.source.names.calls import log_calls
from florlog.source.names.syntax import SourceError, parse, read_as

TRAIN = textwrap.dedent("""\
    import florlog

    def evaluate(model):
        total = 0
        return total

    class Net:
        def forward(self, x):
            return x

    with florlog.run("digits") as run:
        model = Net()
        for epoch in run.loop("epoch", range(20)):
            for x in run.loop(
                "step",
                range(3),
            ):
                loss = x * 2
                run.log(loss=loss)
            if epoch > 3:
                model.rate = 2
            run.log(accuracy=evaluate(model))
""")


def diff(old: str, new: str) -> SourceDiff:
    return compare(old, new, filename="train.py")


def test_comments_and_formatting_are_no_difference() -> None:
    new = TRAIN.replace("loss = x * 2", "loss = (x\n         * 2)  # doubled").replace('"epoch"', "'epoch'")
    result = diff(TRAIN, "# a comment\n\n" + new)
    assert (result.added, result.changed) == ((), ())


def test_added_log_statements_are_found_in_every_place_with_their_code() -> None:
    new = (
        TRAIN.replace("    total = 0\n", "    total = 0\n    florlog.log(total=total)\n")
        .replace("        return x\n", "        florlog.log(mean=x)\n        return x\n")
        .replace("run.log(loss=loss)\n", "run.log(loss=loss)\n            run.log(g=1, h=2)\n")
    )
    result = diff(TRAIN, new)
    assert result.changed == ()
    assert [(a.line, a.qualname, a.log_calls[0].names) for a in result.added] == [
        (5, "evaluate", ("total",)), (10, "Net.forward", ("mean",)), (22, "<module>", ("g", "h")),
    ]  # fmt: skip


def test_call_sites_map_through_multi_line_statements_and_changed_blocks() -> None:
    new = TRAIN.replace("    model = Net()\n", "    run.log(start=1)\n    model = Net()\n").replace(
        "            loss = x * 2\n", "            loss = x * 2\n            run.log(x=x)\n"
    )
    result = diff(TRAIN, new)
    olds, news = TRAIN.splitlines(), new.splitlines()
    assert all(olds[old - 1] == news[new - 1] for new, old in result.line_map.items())
    assert result.line_map[15] == 14
    assert result.line_map[17] == 16
    assert result.old_to_new[14] == 15
    unmapped = {i for i, line in enumerate(news, 1) if line and line.strip() != "):"} - set(result.line_map)
    assert unmapped == {12, 20}


def test_a_changed_statement_and_a_changed_header_are_named_with_both_texts() -> None:
    new = TRAIN.replace("x * 2", "x * 3").replace("range(20)", "range(30)")
    result = diff(TRAIN, new)
    assert result.added == ()
    assert list(map(str, result.changed)) == [
        "line 13: `%s20)):` became `%s30)):`" % (("for epoch in run.loop('epoch', range(",) * 2),
        "line 18: `loss = x * 2` became `loss = x * 3`",
    ]


def test_a_removed_statement_is_a_change() -> None:
    result = diff(TRAIN, TRAIN.replace("            loss = x * 2\n", ""))
    assert [(c.kind, c.old_line, c.new_line, c.old) for c in result.changed] == [
        ("removed", 18, None, "loss = x * 2")
    ]


def test_a_moved_statement_is_a_change_and_still_maps() -> None:
    old = "a = 1\nb = 2\nc = 3\nfor i in []:\n    a = i\n"
    result = diff(old, "b = 2\nc = 3\nfor i in []:\n    a = i\na = 1\n")
    assert result.added == ()
    assert [(c.kind, c.old_line, c.new_line) for c in result.changed] == [("moved", 1, 5)]
    assert result.line_map[5] == 1


def test_a_moved_and_edited_function_is_compared_by_its_name() -> None:
    old = "def f():\n    return 1\ndef g():\n    x = 1\n    return x\ng()\nf()\n"
    new = "def g():\n    x = 1\n    log(x=x)\n    return x\ndef f():\n    a = 2\n    return 1\ng()\nf()\n"
    result = diff(old, new)
    assert [c.kind for c in result.changed] == ["moved"]
    assert [ast.unparse(a.node) for a in result.added] == ["log(x=x)", "a = 2"]


def test_a_new_keyword_in_a_log_call_is_an_addition_of_the_new_name_only() -> None:
    result = diff(TRAIN, TRAIN.replace("run.log(loss=loss)", "run.log(loss=loss, gnorm=x)"))
    assert result.changed == ()
    assert [call.names for a in result.added for call in a.log_calls] == [("gnorm",)]
    assert result.line_map[19] == 19


def test_a_keyword_added_to_any_other_call_is_a_change() -> None:
    old = "import wandb\nwandb.log(a=1)\n"
    assert [c.kind for c in diff(old, old.replace("a=1", "a=1, b=2")).changed] == ["altered"]


def test_a_log_statement_in_place_of_pass_changes_nothing() -> None:
    result = diff("if x:\n    pass\n", "if x:\n    florlog.log(x=x)\n")
    assert result.changed == ()
    assert len(result.added) == 1


def test_a_new_except_branch_is_a_change_and_a_new_else_is_an_addition() -> None:
    old = "try:\n    a()\nexcept KeyError:\n    b()\n"
    result = diff(old, old + "except ValueError:\n    c()\nelse:\n    d()\n")
    assert [(c.kind, c.new_line) for c in result.changed] == [("altered", 5)]
    assert [ast.unparse(a.node) for a in result.added] == ["d()"]


def test_a_new_match_case_is_a_change() -> None:
    old = "match x:\n    case 1:\n        a()\n"
    result = diff(old, old + "    case 2:\n        b()\n")
    assert [(c.kind, c.new_line) for c in result.changed] == [("altered", 4)]


def test_text_that_does_not_parse_names_file_and_line() -> None:
    with pytest.raises(SourceError) as caught:
        compare("a = 1\n", "a = 1\nb = = 2\n", filename="train.py")
    assert (caught.value.file, caught.value.line) == ("train.py", 2)
    assert "train.py, line 2: " in str(caught.value)


@pytest.mark.parametrize(("source", "names"), [
    ("import florlog\nflorlog.log(a=1)", [("a",)]),
    ("import florlog as f\nf.log(a=1, b=2)", [("a", "b")]),
    ("from florlog import log as L\nL(a=1)", [("a",)]),
    ("from math import log\nlog(x=1)", []),
    ("import math\nmath.log(x=1)", []),
    ("import torch\ntorch.special.log(input=1)", []),
    ("import logging\nlogging.log(level=1)", []),
    ("import wandb\nwandb.log(a=1)", []),
    ("import florlog\nwith florlog.run('a') as r:\n    r.log(a=1)", [("a",)]),
    ("from florlog import run\nr = run('a')\nr2 = r\nlg = r2.log\nlg(a=1)", [("a",)]),
    ("def f(r):\n    r.log(a=1)", [("a",)]),
    ("def f(self):\n    self.run.log(**values)", [("*",)]),
    ("def f(r):\n    r.log('a', 1)", []),
    ("def f(r):\n    r.log('a', b=1)", []),
    ("log(a=1)", []),
    ("import florlog\ndef f(log):\n    log(a=1)", []),
])  # fmt: skip
def test_log_calls_are_told_by_binding(source: str, names: list[tuple[str, ...]]) -> None:
    assert [call.names for call in log_calls(parse(source, "m.py"))] == names


def test_the_qualified_name_of_a_log_call_is_that_of_its_code_object() -> None:
    source = textwrap.dedent("""
        import sys
        class R:
            def log(self, **values): found.append(sys._getframe(1).f_code.co_qualname)
        found, r = [], R()
        def main():
            def inner():
                class C:
                    r.log(a=1)
                    def m(self): return [r.log(b=i) for i in [1]], list(r.log(c=i) for i in [1])
                C().m()
            inner()
            (lambda: r.log(d=1))()
        main()
        r.log(e=1)
    """)
    space: dict[str, list[str]] = {}
    exec(source, space)
    assert [call.qualname for call in log_calls(parse(source, "m.py"))] == space["found"]


def test_the_source_hash_ignores_formatting_and_tells_statements_apart() -> None:
    one, two, three = (
        log_calls(parse(text, "m.py"))[0].source_hash
        for text in ("def f(r): r.log(a=1)", "def f(r):\n    r.log(\n  a = 1)  # c", "def f(r): r.log(a=2)")
    )
    assert one == two != three
    assert len(one) == 8


SIMPLE = st.sampled_from(["x = 1", "y = x", "x += 1", "f(x)", "run.log(x=x)", "pass", "del z"])
HEADERS = st.sampled_from(["for i in a:", "while x:", "if x:", "if y:", "with c as d:", "def f():"])


def block(children: st.SearchStrategy[list[str]]) -> st.SearchStrategy[list[str]]:
    compound = st.tuples(HEADERS, children).map(lambda t: [t[0], *("    " + line for line in t[1])])
    statement = st.one_of(SIMPLE.map(lambda s: [s]), compound)
    return st.lists(statement, min_size=1, max_size=5).map(lambda b: [line for s in b for line in s])


PROGRAMS = st.recursive(st.lists(SIMPLE, min_size=1, max_size=4), block, max_leaves=12)


def count(tree: ast.AST) -> int:
    return sum(isinstance(node, ast.stmt) for node in ast.walk(tree))


@given(PROGRAMS)
def test_a_program_does_not_differ_from_itself(lines: list[str]) -> None:
    text = "\n".join(lines)
    result = diff(text, text)
    assert (result.added, result.changed) == ((), ())
    assert result.line_map == {i + 1: i + 1 for i in range(len(lines))}


@settings(max_examples=300)
@given(PROGRAMS, st.data())
def test_inserted_statements_and_nothing_else_are_found(lines: list[str], data: st.DataObject) -> None:
    new = list(lines)
    inserted = 0
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(new)))
        fresh = data.draw(st.one_of(SIMPLE.map(lambda s: [s]), PROGRAMS))
        fresh = ["while y:", *("    " + line for line in fresh)] if len(fresh) > 1 else fresh
        header = new[place - 1].endswith(":") if place else False
        before = new[place - 1] if place else ""
        indent = " " * (len(before) - len(before.lstrip()) + (4 if header else 0))
        new[place:place] = [indent + line for line in fresh]
        inserted += len(fresh)
    old_tree, new_tree = ast.parse("\n".join(lines)), ast.parse("\n".join(new))
    result = diff("\n".join(lines), "\n".join(new))
    assert result.changed == ()
    idle = sum(line.strip() == "pass" for line in lines)
    assert sum(count(a.node) for a in result.added) - inserted in range(idle + 1)
    if not idle:
        places = {(a.line, a.node.col_offset) for a in result.added}
        for node in ast.walk(new_tree):
            for field in ("body", "orelse"):
                inner = getattr(node, field, None)
                if isinstance(inner, list):
                    setattr(node, field, [s for s in inner if (s.lineno, s.col_offset) not in places])
        assert ast.dump(new_tree) == ast.dump(old_tree)
    news = [line.strip() for line in new]
    assert all(news[new_line - 1] == lines[old - 1].strip() for new_line, old in result.line_map.items())


def test_two_distant_edits_in_a_long_flat_script_are_found_quickly() -> None:
    old = [f"x{i} = f({i})" for i in range(3000)]
    new = ["log(a=1)", *old[:100], "y = 1", *old[100:2900], "z = 2", *old[2901:], "log(b=1)"]
    start = time.perf_counter()
    result = diff("\n".join(old), "\n".join(new))
    assert time.perf_counter() - start < 5
    assert [c.old for c in result.changed] == ["x2900 = f(2900)"]
    assert [a.line for a in result.added] == [1, 102, 3003]


def test_a_renamed_variable_is_named_in_each_statement_that_uses_it() -> None:
    result = diff(TRAIN, TRAIN.replace("loss ", "error ").replace("=loss", "=error"))
    assert [(c.kind, c.new_line) for c in result.changed] == [("renamed", 18), ("renamed", 19)]
    assert all("(loss was renamed to error)" in str(c) for c in result.changed)
    assert result.added == ()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a = f()\ng(a)", "b = f()\ng(a)"),  # the old name is still read
        ("a = f()\nb = 1\ng(a)", "b = f()\nb = 1\ng(b)"),  # the new one had another meaning
        ("a = f()\nc = 1\ng(a, c)", "b = f()\nb = 1\ng(b, b)"),  # two became one
        ("a = f()\ng(a)", "b = f(1)\ng(b)"),
        ("a.x = 1", "b.y = 1"),
        ("global a", "global b"),
    ],
)
def test_only_a_consistent_renaming_is_one(old: str, new: str) -> None:
    kinds = [c.kind for c in diff(old, new).changed]
    assert kinds
    assert "altered" in kinds or "removed" in kinds


def test_functions_parameters_and_loops_are_renamed_as_variables_are() -> None:
    old = "def f(a, b):\n    for i in a:\n        g(i, b)\n"
    kinds = [
        (c.kind, c.renamed)
        for c in diff(old, old.replace("a", "k").replace("i ", "j ").replace("(i", "(j")).changed
    ]
    assert {kind for kind, _ in kinds} == {"renamed"}
    assert {pair for _, names in kinds for pair in names} == {("a", "k"), ("i", "j")}


@pytest.mark.parametrize(
    ("header", "statement"),
    [
        ("from florlog import log as L", "L(x=x)"),
        ("import florlog as f", "f.log(x=x)"),
        ("import florlog\nr = florlog.run\nwith r('a') as q:\n    k = q", "k.log(x=x)"),
        ("import florlog\nL = florlog.log", "L(x=x)"),
    ],
)
def test_florlog_is_known_by_binding_under_any_name(header: str, statement: str) -> None:
    old = f"{header}\nfor x in y:\n    pass\n"
    added = diff(old, f"{header}\nfor x in y:\n    {statement}\n").added
    assert [call.names for a in added for call in a.log_calls] == [("x",)]
    foreign = diff(f"from math import log as L\n{old}", f"from math import log as L\n{old}L(x)\n").added
    assert [a.log_calls for a in foreign] == [()]


TOLD = (
    'print(f"epoch {epoch}: loss {loss.item():.3f}", rate(), end="")\nlogger.info("%s of %d", name, count)\n'
)


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        ("loss {loss.item():.3f}", "{loss.item()}; norm {w.norm():.2f}", ("w",)),
        ("rate()", "rate(), 2 * total", ("2_total",)),
        ('"%s of %d", name, count', '"%s of %d, %f", name, count, share', ("share",)),
        (":.3f", ":.6f", ()),
    ],
)
def test_what_tells_a_person_more_tells_the_new_values_alone(
    before: str, after: str, names: tuple[str, ...]
) -> None:
    with read_as(statements):
        result = diff(TOLD, TOLD.replace(before, after))
    assert result.changed == ()
    assert tuple(name for added in result.added for call in added.log_calls for name in call.names) == names


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("loss.item()", "loss"), ("rate()", "other()"), ("print(", "show("), ('end=""', "end=more()"),
        ("logger.info", "logger.error"), ("name, count", "count"), ("{epoch}", "{(epoch := 2)}"),
    ],
)  # fmt: skip
def test_what_tells_something_else_is_a_change(before: str, after: str) -> None:
    with read_as(statements):
        assert diff(TOLD, TOLD.replace(before, after)).changed
