"""Values of statements added afterwards equal those of a full run of the instrumented script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import florlog

from .harness import EXAMPLES, Nursery, flor, newest
from .programs import NESTED, PLACES, add, write

pytestmark = pytest.mark.drawn_in_file(6)


def ask(nursery: Nursery, store: Path, script: Path, *options: str) -> dict[str, Any]:
    """The JSON answer of a replay."""
    nursery.run(store, "florlog", "replay", script, "--format", "json", *options)
    answer: dict[str, Any] = json.loads(
        [
            line
            for line in (nursery.directory / "output.txt").read_text().splitlines()
            if line.startswith("{")
        ][-1]
    )
    return answer


def answers(answer: dict[str, Any]) -> dict[tuple[str, tuple[Any, ...]], list[Any]]:
    found: dict[tuple[str, tuple[Any, ...]], list[Any]] = {}
    for value in answer["values"]:
        found.setdefault((value["name"], tuple(value["path"].items())), []).append(value["value"])
    return found


def instrumented(
    nursery: Nursery, store: Path, script: Path, *options: str, hands_free: bool = False
) -> dict[tuple[str, tuple[Any, ...]], list[Any]]:
    """What a full run of the script logs."""
    nursery.run(store, *(["florlog", "record"] if hands_free else []), script, *options)
    found: dict[tuple[str, tuple[Any, ...]], list[Any]] = {}
    with florlog.open(store) as log:
        for value in log.run().logged():
            held = value.value.tolist() if isinstance(value.value, np.ndarray) else value.value
            found.setdefault((value.name, value.path), []).append(held)
    return found


PACED = {"PROVEN", "CONSISTENT"}
"""The trust of values of NESTED: its fingerprints are paced by time, so a machine that is busy leaves some out."""


@pytest.fixture
def recorded(nursery: Nursery, tmp_path: Path) -> Path:
    """The store of a recorded run of NESTED, whose script is train.py beside it."""
    store = tmp_path / "store"
    nursery.run(store, write(tmp_path / "train.py", NESTED))
    return store


@pytest.mark.wheel
@pytest.mark.parametrize("place", PLACES)
def test_a_statement_in_any_place_has_its_value_of_a_full_run(
    place: str, recorded: Path, nursery: Nursery, tmp_path: Path
) -> None:
    script = write(tmp_path / "train.py", add(NESTED, {place: PLACES[place]}))
    answer = ask(nursery, recorded, script)
    truth = instrumented(nursery, tmp_path / "truth", script)
    names = {name for name, _ in answers(answer)}
    assert names
    assert answers(answer) == {key: values for key, values in truth.items() if key[0] in names}
    assert {value["trust"] for value in answer["values"]} <= PACED
    with florlog.open(recorded) as log:
        found = {value.name for value in log.run().logged()}
        assert names <= found


def test_added_code_draws_from_copies_of_the_generators(nursery: Nursery, tmp_path: Path) -> None:
    """What is asked for is a value of the recorded run, which never drew those numbers."""
    seeds = "import random, numpy; random.seed(7); numpy.random.seed(7); torch.manual_seed(7)"
    program, recorded = NESTED.replace("torch.manual_seed(7)", seeds), tmp_path / "store"
    nursery.run(recorded, write(tmp_path / "train.py", program))
    drawing = {
        "IN FUNCTION": "florlog.log(drawn=torch.rand(2))",
        "AFTER INNER": "more = [random.random(), numpy.random.rand()]; "
        "run.log(more=more, order=[y.sum().item() for _, y in train])",
    }
    script = write(tmp_path / "train.py", add(program, drawing))
    answer = ask(nursery, recorded, script)
    assert "draws random numbers (train.py:" in (nursery.directory / "output.txt").read_text()
    put_back = {
        place: "import random, numpy; held = random.getstate(), numpy.random.get_state(), torch.get_rng_state(); "
        f"{statement}; "
        "random.setstate(held[0]); numpy.random.set_state(held[1]); torch.set_rng_state(held[2])"
        for place, statement in drawing.items()
    }
    truth = instrumented(nursery, tmp_path / "truth", write(tmp_path / "apart.py", add(program, put_back)))
    names = {"drawn", "more", "order"}
    assert answers(answer) == {key: values for key, values in truth.items() if key[0] in names}
    assert {value["trust"] for value in answer["values"]} <= PACED


def test_statements_in_every_place_at_once_have_their_values(
    recorded: Path, nursery: Nursery, tmp_path: Path
) -> None:
    script = write(tmp_path / "train.py", add(NESTED, PLACES))
    answer = ask(nursery, recorded, script)
    truth = instrumented(nursery, tmp_path / "truth", script)
    logged_before = {"loss", "right", "best", "total"}
    assert answers(answer) == {key: values for key, values in truth.items() if key[0] not in logged_before}


IMAGES_EVERYWHERE = NESTED.replace(
    'florlog.run("nested", overhead=1.0)', 'florlog.run("nested", overhead=float("inf"))'
)


def test_with_a_fingerprint_at_every_step_a_statement_in_every_place_is_proven(
    nursery: Nursery, tmp_path: Path
) -> None:
    script, store = write(tmp_path / "train.py", IMAGES_EVERYWHERE), tmp_path / "store"
    nursery.run(store, script)
    answer = ask(nursery, store, write(script, add(IMAGES_EVERYWHERE, PLACES)))
    assert {value["trust"] for value in answer["values"]} == {"PROVEN"}


def test_reading_state_between_inner_loops_runs_no_inner_iteration(nursery: Nursery, tmp_path: Path) -> None:
    script, store = write(tmp_path / "train.py", IMAGES_EVERYWHERE), tmp_path / "store"
    nursery.run(store, script)
    write(script, add(IMAGES_EVERYWHERE, {"AFTER INNER": "run.log(after=model.second.weight.norm())"}))
    answer = ask(nursery, store, script)
    redo = [item for segment in answer["plan"]["segments"] for item in segment["redo"]]
    assert not any("step" in item["from"] for item in redo)
    assert answer["plan"]["answered_from_state"] == 4
    assert len(answer["values"]) == 4


def test_a_question_about_one_epoch_re_executes_that_epoch_only(nursery: Nursery, tmp_path: Path) -> None:
    script, recorded = write(tmp_path / "train.py", IMAGES_EVERYWHERE), tmp_path / "store"
    nursery.run(recorded, script)
    write(script, add(IMAGES_EVERYWHERE, {"INSIDE INNER": PLACES["INSIDE INNER"]}))
    plan = json.loads(flor(recorded, "explain", script, "--where", "epoch == 2", "--format", "json").stdout)
    redo = [item for segment in plan["segments"] for item in segment["redo"]]
    assert {item["from"]["epoch"] for item in redo} == {item["to"]["epoch"] for item in redo} == {2}
    answer = ask(nursery, recorded, script, "--where", "epoch == 2")
    assert answer["plan"]["iterations_redone"] == plan["iterations_redone"] == 8
    assert {value["path"]["epoch"] for value in answer["values"]} == {2}
    truth = instrumented(nursery, tmp_path / "truth", script)
    assert answers(answer) == {
        (name, path): values
        for (name, path), values in truth.items()
        if name in ("running", "w") and dict(path)["epoch"] == 2
    }


def test_with_an_image_at_every_boundary_a_question_about_one_step_re_executes_one_step(
    nursery: Nursery, tmp_path: Path
) -> None:
    script = write(tmp_path / "train.py", IMAGES_EVERYWHERE)
    nursery.run(tmp_path / "store", script)
    write(script, add(IMAGES_EVERYWHERE, {"INSIDE INNER": PLACES["INSIDE INNER"]}))
    answer = ask(nursery, tmp_path / "store", script, "--where", "epoch == 2 and step == 5")
    assert answer["plan"]["iterations_redone"] == 1
    assert {value["trust"] for value in answer["values"]} == {"PROVEN"}
    truth = instrumented(nursery, tmp_path / "truth", script)
    found = answers(answer)
    assert {path for _, path in found} == {(("epoch", 2), ("step", 5))}
    assert found == {key: truth[key] for key in found}


EXAMPLE_STATEMENTS = {
    "digits.py": {
        "                optimizer.step()\n": (
            "                run.log(gnorm=sum(p.grad.norm() for p in model.parameters()))\n"
        ),
        "            scheduler.step()\n": "            run.log(weight=model[0].weight.norm())\n",
        "            run.log(accuracy=accuracy)\n": "            run.log(right=(predictions == targets).sum())\n",
        "        predictions.append(model(x).argmax(dim=1))\n": "        florlog.log(ones=(y == 1).sum())\n",
    },
    "charlm.py": {
        "        x = x + self.proj(attended.transpose(1, 2).reshape(batch, length, width))\n": (
            "        florlog.log(residual=x.abs().max())\n"
        ),
        "                optimizer.step()\n": "                run.log(head=model.head.weight.norm())\n",
    },
}


@pytest.mark.wheel
@pytest.mark.parametrize(
    ("example", "options"),
    [
        ("digits.py", ("--epochs", "2", "--batch-size", "96")),
        ("charlm.py", ("--epochs", "2", "--steps", "8", "--width", "32", "--context", "32")),
    ],
)
def test_replayed_values_of_the_examples_equal_a_full_run(
    example: str, options: tuple[str, ...], nursery: Nursery, tmp_path: Path
) -> None:
    script = tmp_path / example
    text = (EXAMPLES / example).read_text()
    script.write_text(text)
    nursery.run(tmp_path / "store", script, *options)
    for line, statement in EXAMPLE_STATEMENTS[example].items():
        assert line in text
        text = text.replace(line, line + statement)
    script.write_text(text)
    answer = ask(nursery, tmp_path / "store", script)
    truth = instrumented(nursery, tmp_path / "truth", script, *options)
    found = answers(answer)
    names = {name for name, _ in found}
    assert len(names) == len(EXAMPLE_STATEMENTS[example])
    assert found == {key: values for key, values in truth.items() if key[0] in names}
    assert {value["trust"] for value in answer["values"]} <= PACED


def test_what_an_earlier_replay_found_is_not_executed_again(
    recorded: Path, nursery: Nursery, tmp_path: Path
) -> None:
    script = write(tmp_path / "train.py", add(NESTED, {"INSIDE INNER": PLACES["INSIDE INNER"]}))
    first = ask(nursery, recorded, script, "--where", "epoch == 1")
    assert first["plan"]["answered_from_log"] == 0
    again = ask(nursery, recorded, script, "--where", "epoch == 1 and step in [2:5]")
    assert again["plan"]["iterations_redone"] == 0
    assert again["plan"]["segments"] == []
    assert again["plan"]["answered_from_log"] == len(again["values"]) == 6
    more = ask(nursery, recorded, script, "--where", "epoch <= 1")
    assert more["plan"]["iterations_redone"] == 8
    assert more["plan"]["answered_from_log"] == 16
    truth = instrumented(nursery, tmp_path / "truth", script)
    expected = {
        key: values
        for key, values in truth.items()
        if key[0] in ("running", "w") and dict(key[1])["epoch"] <= 1
    }
    assert answers(more) == expected
    assert [value["path"] for value in more["values"]] == sorted(
        (value["path"] for value in more["values"]), key=lambda path: (path["epoch"], path["step"])
    )


def test_a_changed_helper_makes_the_statement_another_one(
    recorded: Path, nursery: Nursery, tmp_path: Path
) -> None:
    for factor in (1, 2):
        places = {"INSIDE INNER": f"factor = {factor}\n                run.log(scaled=factor * total)"}
        answer = ask(nursery, recorded, write(tmp_path / "train.py", add(NESTED, places)), "--first", "3")
        assert answer["plan"]["answered_from_log"] == 0
        assert len(answer["values"]) == 3


INNER = {
    "in a branch": "if step_no % 2:\n                    run.log(odd=total)\n                    total += 0",
    "in a plain loop": "for p in model.parameters():\n                    run.log(norms=p.norm())",
    "behind another": "run.log(early=loss.item())\n                run.log(late=total)",
    "in a with block": "with torch.no_grad():\n                    run.log(m=model.first.weight.mean())",
}


NAMING = """
import torch
from torch import nn

import florlog

torch.manual_seed(0)
x, y = torch.randn(64, 8), torch.randn(64, 1)
model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5), nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)


def fit(step):
    loss = nn.functional.mse_loss(model(x[step::4]), y[step::4])
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model[0].parameters(), 0.1)
    nn.utils.clip_grad_norm_(model[2].parameters(), 0.1)
    optimizer.step()
    return loss.item()


with florlog.run("naming") as run:
    run.track(model=model, optimizer=optimizer)
    for epoch in run.loop("epoch", range(3)):
        for step in run.loop("step", range(4)):
            run.log(loss=fit(step))
"""
OUT = ("mse_loss(model(x[step::4]), ", "mse_loss(out, ")
FIT = "    loss = nn"
EPOCH = "            run.log(loss=fit(step))"


def test_a_recorded_value_may_be_given_a_name_to_log_it(nursery: Nursery, tmp_path: Path) -> None:
    script, store = write(tmp_path / "train.py", NAMING), tmp_path / "store"
    nursery.run(store, script)
    run = newest(store)
    first = "nn.utils.clip_grad_norm_(model[0]", "norm = nn.utils.clip_grad_norm_(model[0]"
    second = "nn.utils.clip_grad_norm_(model[2]", "norm = nn.utils.clip_grad_norm_(model[2]"
    log = "    optimizer.step()\n", "    optimizer.step()\n    run.log(norm=norm)\n"
    ahead = FIT, f"    out = model(x[step::4])\n    run.log(spread=out.std())\n{FIT}"
    result = (
        EPOCH,
        "            again = fit(step)\n            run.log(loss=again)\n            run.log(twice=2 * again)",
    )
    for edits in ([first, log], [second, log], [OUT, ahead], [result], [first, log, OUT, ahead, result]):
        text = NAMING
        for before, after in edits:
            assert before in text
            text = text.replace(before, after)
        write(script, text)
        truth = instrumented(nursery, tmp_path / f"truth{len(text)}{edits[0] == second}", script)
        answer = ask(nursery, store, script, "--run", run)
        assert {value["trust"] for value in answer["values"]} == {"PROVEN"}
        found = answers(answer)
        assert len(found) == 12 * len(edits) - 12 * (OUT in edits) - 12 * (log in edits)
        assert all(truth[key] == values for key, values in found.items())


@pytest.mark.parametrize("kind", INNER)
def test_an_iteration_left_early_has_all_its_values_of_a_full_run(
    kind: str, nursery: Nursery, tmp_path: Path
) -> None:
    loop = 'for bx, by in run.loop("step", train):'
    text = NESTED.replace(loop, f"for step_no, (bx, by) in enumerate({loop[14:-1]}):")
    text = text.replace("                run.log(loss=loss)\n                # INSIDE INNER\n", (
        "                # INSIDE INNER\n                run.log(loss=loss)\n                time.sleep(0.001)\n"
    ))  # fmt: skip
    text = text.replace('florlog.run("nested", overhead=1.0)', 'florlog.run("nested", overhead=float("inf"))')
    script, store = write(tmp_path / "train.py", text), tmp_path / "store"
    nursery.run(store, script)
    write(script, add(text, {"INSIDE INNER": INNER[kind]}))
    answer = ask(nursery, store, script, "--where", "epoch in (1, 3) and step in [1:8:3]")
    parts = [item["part"] for segment in answer["plan"]["segments"] for item in segment["redo"]]
    assert "prefix" in parts
    truth = instrumented(nursery, tmp_path / "truth", script)
    names = {name for name, _ in answers(answer)}
    wanted = [(epoch, step) for epoch in (1, 3) for step in (1, 4, 7)]
    assert answers(answer) == {
        (name, path): values
        for (name, path), values in truth.items()
        if name in names and tuple(index for _, index in path) in wanted
    }
    assert {value["trust"] for value in answer["values"]} == {"PROVEN"}


def test_conditions_see_logged_values_and_first_and_last_count_what_they_leave(
    recorded: Path, nursery: Nursery, tmp_path: Path
) -> None:
    script = write(tmp_path / "train.py", add(NESTED, {"INSIDE INNER": PLACES["INSIDE INNER"]}))
    with florlog.open(recorded) as log:
        logged = {(v.name, v.path): v.value for v in log.run().logged()}
    losses = {path: value for (name, path), value in logged.items() if name == "loss"}
    best = max(v for (name, _), v in logged.items() if name == "right")
    middle = sorted(losses.values())[len(losses) // 2]
    chosen = [path for path in losses if losses[path] > middle]

    def paths(*options: str) -> list[tuple[tuple[str, int], ...]]:
        answer = ask(nursery, recorded, script, *options)
        return list(dict.fromkeys(tuple(value["path"].items()) for value in answer["values"]))

    condition = f"loss > {middle!r}"
    assert paths("--where", condition, "--first", "3") == chosen[:3]
    assert paths("--where", condition, "--last", "2", "--first", "1") == [chosen[0], *chosen[-2:]]
    assert paths("--where", condition) == chosen
    assert paths("--last", "3", "--first", "2") == [*list(losses)[:2], *list(losses)[-3:]]
    around = [path for path in losses if logged["right", path[:1]] == best]
    assert paths("--where", f"right == {best} and step == 0") == [p for p in around if p[1][1] == 0]


TWO_LOOPS = """
import torch, florlog
torch.manual_seed(0)
w = torch.zeros(3)
with florlog.run("two", overhead=float("inf")) as run:
    for epoch in run.loop("epoch", range(4)):
        w += torch.randn(3)
        run.log(first=w.sum().item())
    for epoch in run.loop("epoch", range(4)):
        w -= torch.randn(3)
        run.log(second=w.sum().item())
"""


@pytest.mark.parametrize(
    ("condition", "loop"), [("epoch == 2", "epoch"), ("loop['epoch#2'] == 2", "epoch#2")]
)
def test_a_condition_reaches_the_second_loop_of_a_name(
    nursery: Nursery, tmp_path: Path, condition: str, loop: str
) -> None:
    script = write(tmp_path / "train.py", TWO_LOOPS)
    nursery.run(tmp_path / "store", script)
    script.write_text(TWO_LOOPS.replace("run.log(", "run.log(most=w.max().item()); run.log("))
    answer = ask(nursery, tmp_path / "store", script, "--where", condition)
    (value,) = answer["values"]
    expected = instrumented(nursery, tmp_path / "full", script)["most", ((loop, 2),)]
    assert (value["path"], [value["value"]]) == ({loop: 2}, expected)


def test_analyze_shows_what_each_part_took(recorded: Path, tmp_path: Path) -> None:
    script = write(tmp_path / "train.py", add(NESTED, {"INSIDE INNER": PLACES["INSIDE INNER"]}))
    options = ("--where", "epoch in (1, 3)", "--analyze")
    plan = json.loads(flor(recorded, "replay", script, *options, "--format", "json").stdout)["plan"]
    assert plan["actual_seconds"] > 0
    first, *others = [segment["actual_seconds"] for segment in plan["segments"]]
    assert 0 <= first < 1  # without the set-up, which imports torch
    assert all(seconds > 0 for seconds in others)
    script.write_text(script.read_text().replace("running=total", "running=total + 0"))
    text = flor(recorded, "replay", script, *options).stdout
    assert "set-up of the script" in text
    assert "for running, w" in text
    assert ", took " in text


KEPT = """
import copy
import torch
torch.manual_seed(0)
weight, best = torch.zeros(3), None
for epoch in range(5):
    for step in range(4):
        weight += torch.randn(3)
        print("least", weight.min())
        # print("gap", weight.norm())
    if epoch % 2 == 0:
        best = weight.clone()
    # print("kept", best.sum())
    print("epoch", epoch, weight.sum())
"""


@pytest.mark.parametrize("where", ["epoch == 4 and step == 3", "epoch == 3 and step >= 2", "epoch >= 3"])
def test_what_another_added_statement_needs_keeps_no_image_away(
    nursery: Nursery, tmp_path: Path, where: str
) -> None:
    store = tmp_path / "store"
    script = tmp_path / "train.py"
    script.write_text(KEPT)
    nursery.run(store, "florlog", "record", script, dense=True)
    asked = tmp_path / "asked.py"
    asked.write_text(KEPT.replace("# print", "print"))
    truth = instrumented(nursery, tmp_path / "full", asked, hands_free=True)
    script.write_text(asked.read_text())
    answer = ask(nursery, store, script, "--where", where)
    found = answers(answer)
    assert found
    assert all(truth[key] == value for key, value in found.items())
    needs_all = where == "epoch >= 3"
    assert {name for name, _ in found} == ({"gap", "kept"} if needs_all else {"gap"})
    assert (answer["plan"]["iterations_redone"] > 4) == needs_all
