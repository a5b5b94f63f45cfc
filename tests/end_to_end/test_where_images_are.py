"""On a budget, images are where a question can go to: a late iteration redoes no more than there is since the nearest.

Each program is a training whose epochs have statements before their steps (`test_blind_entries`).  Where these can run
on any state, the image of an epoch is at the end of its steps.  Where they cannot, that one could only be reached
through the epochs before it, and the image is at the start of the next epoch.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import florlog

from .harness import Nursery
from .test_blind_entries import EPOCHS, FORMS, HARMLESS, OTHERS, STEPS, Program, ask

pytestmark = pytest.mark.drawn_in_file(4)

EARLIER_LOOP = """\
for warm in run.loop('warm', range(2)):
    factor += model(torch.randn(1, 3)).item() / 100
    time.sleep(0.02)"""
DRAW = random.Random(20)
CASES = [
    *((form, (DRAW.choice(HARMLESS),), True) for form in FORMS),
    *((DRAW.choice(list(FORMS)), (DRAW.choice(HARMLESS), other), False) for other in (*OTHERS, EARLIER_LOOP)),
]


@pytest.mark.parametrize(("form", "prologue", "entered"), CASES, ids=lambda value: str(value)[:40])
def test_a_late_question_redoes_what_is_since_the_nearest_image(
    form: str, prologue: tuple[str, ...], *, entered: bool, nursery: Nursery, tmp_path: Path
) -> None:
    class Paced(Program):
        """With steps of 50 ms, so that an epoch is not brief, and analysed at once."""

        def text(self, *, asked: bool = False) -> str:
            text = super().text(asked=asked).replace("overhead=float('inf')", "overhead=0.1")
            early = (
                "from florlog.recording import boundary_worth\nboundary_worth.ANALYSIS_AFTER_SECONDS = 0.0"
            )
            return text.replace(
                "    x = torch.randn(4, 3)", "    time.sleep(0.05)\n    x = torch.randn(4, 3)"
            ).replace("import florlog\n", f"import florlog\n{early}\n", 1)

    program = Paced(form, prologue)
    script, store = tmp_path / "train.py", tmp_path / "store"
    script.write_text(program.text())
    nursery.run(store, script)
    with florlog.open(store) as log:
        epochs = log.run().tree().root.loops[0]
    starts = epochs.images.keys() - {0, EPOCHS}
    ends = {index + 1 for index, node in epochs.nodes.items() if STEPS in node.loops[-1].images} - {EPOCHS}
    assert len(ends | starts) > 1
    assert (len(ends) > len(starts)) == entered
    assert EPOCHS in epochs.images
    answer = ask(nursery, script, store, program, f"epoch == {EPOCHS - 1} and step == {STEPS - 1}")
    assert len(answer["values"]) == 1
    since = EPOCHS - max(starts | ends if entered else starts)
    of_an_epoch = STEPS + (2 if prologue[-1] is EARLIER_LOOP else 0)
    assert answer["plan"]["iterations_redone"] <= since * of_an_epoch
