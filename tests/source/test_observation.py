"""Added code that changes what the recorded code computes is reported, and what comes of it is never PROVEN."""

from __future__ import annotations

from pathlib import Path

import pytest

from florlog.source.diff.observation import changing
from florlog.source.diff.source_diff import compare
from tests.end_to_end.harness import Nursery
from tests.end_to_end.programs import NESTED, add, write

SEEN = "                seen.append(loss.item())\n                run.log(n=len(seen))\n"
LISTED = NESTED.replace("    best = 0\n", "    best = 0\n    seen = []\n").replace(
    "                total += loss.item()\n", f"                total += loss.item()\n{SEEN}"
)

OLD = "import torch\nmodel = make()\nhistory = []\nfor x in data:\n    loss = model(x)\n    # HERE\n    use(loss)\n"


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("loss.backward()", "changes loss with .backward()"),
        ("history.append(1)", "changes history with .append()"),
        ("log(a=history.pop())", "changes history with .pop()"),
        ("model.weight.data.mul_(2)", "changes model with .mul_()"),
        ("torch.manual_seed(1)", "changes torch with .manual_seed()"),
        ("model.rate = 3", "stores into model"),
        ("history[0] = 3", "stores into history"),
        ("loss = loss * 2", "assigns loss, a name of the recorded code"),
        ("mine = [loss]\n    mine.append(2)", ""),
        ("log(norm=loss.clone().mul_(2).norm())", ""),
        ("log(norm=sum(p.norm() for p in model.parameters()))", ""),
        ("log(many=[x.norm() for loss, x in pairs])", ""),
        ("log(many=[(loss := x) for x in pairs])", "assigns loss, a name of the recorded code"),
        ("for q in model.parameters(): log(q=q.norm())", ""),
    ],
)
def test_code_that_does_more_than_observe_is_found_by_its_form(statement: str, found: str) -> None:
    new = OLD.replace("# HERE", statement)
    texts = [what for _, what in changing(OLD, compare(OLD, new, filename="t.py"), "t.py")]
    assert [what.partition("` ")[2] for what in texts] == ([found] if found else [])


@pytest.fixture(scope="module")
def recorded(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("observation") / "store"
    nursery.run(store, write(store.parent / "train.py", LISTED))
    return store


@pytest.mark.parametrize(
    ("place", "statement", "said"),
    [
        ("IN FUNCTION", "florlog.log(twice=model(x).sum().backward())", "changes model with .backward()"),
        ("INSIDE INNER", "run.log(more=seen.append(0.0))", "changes seen with .append()"),
        (
            "INSIDE INNER",
            "run.log(mixed=model.first.weight.data.mul_(0.5).sum())",
            "changes model with .mul_()",
        ),
    ],
)
def test_a_statement_that_changes_state_is_reported_and_never_proven(
    place: str, statement: str, said: str, recorded: Path, nursery: Nursery
) -> None:
    script = write(recorded.parent / "train.py", add(LISTED, {place: statement}))
    nursery.run(recorded, "florlog", "replay", script, "--format", "json", code=1)
    output = (nursery.directory / "output.txt").read_text()
    assert "florlog: added code should only observe: train.py, line " in output
    assert said in output
    assert "the replay differs from the recording" in output
    assert '"trust": "DIVERGED"' in output
