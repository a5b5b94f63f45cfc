"""Hypothesis strategies for the texts of small programs: modules with nested scopes, and blocks of plain statements."""

from __future__ import annotations

from hypothesis import strategies as st

# -- nested scopes -----------------------------------------------------------------------------------

SCOPED_NAMES = st.sampled_from(["a", "b", "c", "d"])
DECLARATIONS = st.lists(
    st.builds("{} {}".format, st.sampled_from(["global", "nonlocal"]), SCOPED_NAMES), max_size=1
)
VALUES = st.recursive(
    st.one_of(SCOPED_NAMES, st.just("0")),
    lambda inner: st.one_of(
        st.builds("({} + {})".format, inner, inner),
        st.builds("({} := {})".format, SCOPED_NAMES, inner),
        st.builds("(lambda {}={}, *{}: {})".format, SCOPED_NAMES, inner, st.just("rest"), inner),
        st.builds("[{} for {} in {}]".format, inner, SCOPED_NAMES, inner),
        st.builds("{{{}: 1 for {}[{}] in {}}}".format, inner, SCOPED_NAMES, SCOPED_NAMES, inner),
        st.builds(
            "({} for {} in {} for {} in {} if {})".format,
            inner, SCOPED_NAMES, inner, SCOPED_NAMES, inner, inner,
        ),
    ),
    max_leaves=4,
)  # fmt: skip
SCOPED_STATEMENTS = st.one_of(
    st.builds("{} = {}".format, SCOPED_NAMES, VALUES),
    st.builds("{} += {}".format, SCOPED_NAMES, VALUES),
    st.builds("{}, *{} = {}".format, SCOPED_NAMES, SCOPED_NAMES, VALUES),
    st.builds("{}: int".format, SCOPED_NAMES),
    st.builds("{}: int = {}".format, SCOPED_NAMES, VALUES),
    st.builds("del {}".format, SCOPED_NAMES),
    st.builds("import {}.x".format, SCOPED_NAMES),
    st.builds("from x import y as {}".format, SCOPED_NAMES),
    st.builds("use({})".format, VALUES),
)


def indented(lines: list[str]) -> list[str]:
    """Lines one level deeper."""
    return ["    " + line for line in lines]


def join(parts: list[list[str]]) -> list[str]:
    """The lines of several pieces of text, one after the other."""
    return [line for part in parts for line in part]


def _definition(header: str, declarations: list[str], body: list[str]) -> list[str]:
    return [header, *indented([*declarations, *body])]


def _scoped_block(inner: st.SearchStrategy[list[str]]) -> st.SearchStrategy[list[str]]:
    headers = st.one_of(
        st.builds(
            "def {}({}={}, *, {}={}):".format, SCOPED_NAMES, SCOPED_NAMES, VALUES, SCOPED_NAMES, VALUES
        ),
        st.builds("def {}():".format, SCOPED_NAMES),
        st.builds("class {}({}):".format, SCOPED_NAMES, VALUES),
    )
    plain = st.one_of(
        st.builds("for {} in {}:".format, SCOPED_NAMES, VALUES),
        st.builds("with {} as {}:".format, VALUES, SCOPED_NAMES),
        st.builds("if {}:".format, VALUES),
    )
    return st.one_of(
        st.builds(_definition, headers, DECLARATIONS, inner),
        st.builds(_definition, headers, DECLARATIONS, inner),
        st.builds(_definition, plain, st.just([]), inner),
        st.builds(
            lambda name, body: ["try: pass", f"except E as {name}:", *indented(body)], SCOPED_NAMES, inner
        ),
        st.builds(
            lambda value, name, other, body: [
                f"match {value}:", f"    case [{name}, *{other}]:", *indented(indented(body)),
            ],
            VALUES, SCOPED_NAMES, SCOPED_NAMES, inner,
        ),
    )  # fmt: skip


MODULES = st.recursive(
    st.lists(SCOPED_STATEMENTS, min_size=1, max_size=3),
    lambda inner: st.lists(
        st.one_of(st.lists(SCOPED_STATEMENTS, min_size=1, max_size=3), _scoped_block(inner)),
        min_size=1,
        max_size=3,
    ).map(join),
    max_leaves=6,
).map("\n".join)
"""Modules whose functions, classes and comprehensions bind, declare and read four names.

Not each of them is valid Python (``nonlocal`` may find no function to bind in).
"""

# -- straight code and loops -------------------------------------------------------------------------

NAMES = st.sampled_from("abcd")
NUMBERS = st.integers(0, 3)
SIMPLE = st.one_of(
    st.builds("{} = {}".format, NAMES, NUMBERS),
    st.builds("{} = {}".format, NAMES, NAMES),
    st.builds("{} = [{}]".format, NAMES, NAMES),
    st.builds("{} = num({}) + num({})".format, NAMES, NAMES, NAMES),
    st.builds("{} += {}".format, NAMES, st.sampled_from(["1", "[2]"])),
    st.builds("{}.append({})".format, NAMES, NUMBERS),
    st.builds("{}[0] = {}".format, NAMES, NUMBERS),
    st.builds("{}, {} = {}, {}".format, NAMES, NAMES, NAMES, NUMBERS),
    st.builds("emit({})".format, NAMES),
    st.builds("touch({})".format, NAMES),
    st.builds("{} = keep({})".format, NAMES, NAMES),
    st.builds("del {}".format, NAMES),
    st.builds("if num({}) > 1: {}".format, NAMES, st.sampled_from(["break", "continue", "raise ValueError"])),
    st.builds("{} = [i for {} in range(2) for i in [{}]]".format, NAMES, NAMES, NAMES),
    st.builds("emit(({} := {}))".format, NAMES, NUMBERS),
)
HEADERS = st.one_of(
    st.builds("if num({}) > {}:".format, NAMES, NUMBERS),
    st.builds("for {} in range({}):".format, NAMES, NUMBERS),
    st.builds("for {} in list(items({})):".format, NAMES, NAMES),
    st.just("while tick():"),
    st.just("try:"),
    st.just("with quiet():"),
    st.builds("match {}:".format, NAMES),
)
CLOSERS = st.sampled_from(["else:", "finally:", "except ValueError:", "except Exception:"])


def _compound(header: str, body: list[str], closer: str, other: list[str]) -> list[str]:
    if header == "try:":
        closer = "except Exception:" if closer == "else:" else closer
        return [header, *indented(body), closer, *indented(other)]
    if header.startswith("match"):
        return [header, *indented([f"case {'0'}:", *indented(body), "case a:", *indented(other)])]
    if closer == "else:" and not header.startswith("with"):
        return [header, *indented(body), closer, *indented(other)]
    return [header, *indented(body)]


LEAVES = st.lists(SIMPLE, min_size=1, max_size=4)
BLOCKS = st.recursive(
    LEAVES,
    lambda inner: st.lists(
        st.one_of(LEAVES, st.builds(_compound, HEADERS, inner, CLOSERS, inner)), min_size=1, max_size=4
    ).map(join),
    max_leaves=6,
)
"""Lists of lines: assignments to four names, changes of their objects, and compound statements around them."""
