"""The browser's screens as text, at both sizes: what a person sees, kept in files next to this one.

A change of the screens on purpose: FLORLOG_WRITE_SCREENS=1 pytest tests/ui/test_screens.py, and look at the
difference.  Text is compared and not SVG, as that changes with each version of textual.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from florlog_wal import (
    Begin,
    CheckpointBegin,
    CheckpointEnd,
    Commit,
    Hindsight,
    LoopBegin,
    LoopEnd,
    RunBegin,
    RunEnd,
    RunLog,
    Statement,
)
from textual.pilot import Pilot

from florlog.ui.run_screen import RunScreen

from .test_browser import asking, browse, shown, until

SCREENS = Path(__file__).parent / "screens"
SOURCE = """import florlog

with florlog.run("drawn") as run:
    for epoch in run.loop("epoch", range(3)):
        for step in run.loop("step", range(20)):
            run.log(loss=train(step))
        run.log(accuracy=evaluate())
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which nothing depends on the day or the machine."""
    path = tmp_path_factory.mktemp("screens") / "store"
    with RunLog.open(path, mode="w") as store:
        (page,) = store.put_pages([SOURCE.encode()]).digests
        sources = (("/home/you/drawn.py", "__main__", page),)

        def begin(log: RunLog, kind: str) -> int:
            params = {"lr": 0.1}
            return log.append(
                RunBegin(
                    "drawn", "drawn", kind, "/home/you/drawn.py", (), "/", params, {}, sources, 0.0, 0, 1, 0
                )
            )

        session = begin(store, "record")

        def put(record: object) -> int:
            return store.append(record, session=session)  # type: ignore[arg-type]

        for number, (kind, line, loops, name) in enumerate(
            (("loop", 4, (), "epoch"), ("loop", 5, ("epoch",), "step"),
             ("log", 6, ("epoch", "step"), "loss"), ("log", 7, ("epoch",), "accuracy")), 1,
        ):  # fmt: skip
            put(Statement(number, kind, "/home/you/drawn.py", "<module>", line, b"", loops, (name,)))
        outer = put(LoopBegin((), "epoch", 0, 1, "for", 3, 0, (), 0.0, {}))
        for epoch in range(3):
            put(Begin(outer, epoch))
            if epoch != 1:
                image = put(CheckpointBegin(outer, epoch))
                put(CheckpointEnd(image, page, 1_000_000, 250_000, 0.001, 0.02))
            inner = put(LoopBegin((("epoch", epoch),), "step", outer, 2, "for", 20, 0, (), 0.0, {}))
            for step in range(20):
                loss = 2.0 / (1 + 20 * epoch + step)
                put(Commit(inner, step, 0, ((3, "loss", loss),), 0.125, b"r" * 8, b"d" * 8, b"", False))
            put(LoopEnd(inner, 20, False))
            accuracy = ((4, "accuracy", 0.5 + epoch / 5),)
            put(Commit(outer, epoch, 1, accuracy, 2.75, b"r" * 8, b"", b"", False))
        put(LoopEnd(outer, 3, False))
        put(RunEnd("complete", 9.0, None))
        with store.open_answers() as answers:
            session = begin(answers, "replay")
            norm = Statement(1, "log", "/home/you/drawn.py", "<module>", 7, b"", ("epoch", "step"), ("norm",))
            answers.append(norm, session=session)
            for step in range(20):
                trust = "PROVEN" if step < 15 else "UNVERIFIED"
                found = Hindsight((("epoch", 2), ("step", step)), ((1, "norm", 3.0 - step / 10),), trust, "")
                answers.append(found, session=session)
            answers.append(RunEnd("complete", 1.0, None), session=session)
    return path


def text_of(screen: RunScreen) -> str:
    rows = screen.app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in rows) + "\n"


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_the_screens_are_as_they_were(store: Path, size: tuple[int, int]) -> None:
    async def drive(pilot: Pilot[None], screen: RunScreen) -> None:
        async def shows(name: str, seconds: float) -> bool:
            file = SCREENS / f"{name}-{size[0]}.txt"
            if os.environ.get("FLORLOG_WRITE_SCREENS"):
                SCREENS.mkdir(exist_ok=True)
                await pilot.pause(1)
                file.write_text(text_of(screen), encoding="utf-8")
            held = file.read_text(encoding="utf-8")
            deadline = time.monotonic() + seconds
            while text_of(screen) != held and time.monotonic() < deadline:
                await pilot.pause(0.05)
            return text_of(screen) == held

        async def look(name: str) -> None:
            assert await shows(name, 60), (
                f"{name}-{size[0]}.txt is not what is shown"
            )  # a loaded machine draws late

        await pilot.press(*["right_square_bracket"] * 3, "m")
        await look("records")
        await pilot.press("s")
        await look("source")
        await pilot.press("c", "N")
        await until(pilot, lambda: "20 numbers" in shown(screen, "#curves"))
        await look("curves")
        await pilot.press("r")
        await asking(pilot)
        await look("hindsight")
        for _ in range(6):
            await pilot.press("escape")
            # What lies behind a dialog is drawn when it opens, on a loaded machine perhaps before it is there again.
            await until(pilot, lambda: screen.app.screen is screen and "RunBegin" in text_of(screen))
            await pilot.press("question_mark")
            if await shows("help", 10):
                return
        raise AssertionError(f"help-{size[0]}.txt is not what is shown")

    browse(store, drive, run="drawn", size=size)
