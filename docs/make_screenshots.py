"""Writes docs/images/*.svg: the browser over a store, driven by keys.

python docs/make_screenshots.py STORE     a store with a run of examples/digits.py

The pictures show the paths of store and script: both belong into /home/you/project.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from textual.widgets import Input

from florlog.inspect.selection import RecordSelection
from florlog.program.stores import open_store
from florlog.ui.app import Browser
from florlog.ui.ask_dialog import Ask
from florlog.ui.run_screen import RunScreen

IMAGES = Path(__file__).resolve().parent / "images"
NORM = "grad_norm=nn.utils.get_total_norm([p.grad for p in model.parameters()])"


async def shoot(path: Path) -> None:
    """Records, source and plan; then the question of the tutorial key by key, and the answer's curve."""
    with open_store(path) as store:
        app = Browser(store, None, RecordSelection())
        async with app.run_test(size=(100, 28)) as pilot:

            async def picture(name: str) -> None:
                await pilot.pause(3)  # a loaded machine draws late
                app.save_screenshot(f"{name}.svg", str(IMAGES))

            await picture("runs")
            await pilot.press("enter")
            while not (isinstance(app.screen, RunScreen) and app.screen.run_tree):
                await pilot.pause(0.1)
            await pilot.press(*["right_square_bracket"] * 3)
            await picture("records")
            await pilot.press("s")
            await picture("source")
            await pilot.press("c")
            await picture("curves")
            await pilot.press("r", "h")
            while not (isinstance(app.screen, Ask) and isinstance(app.focused, Input)):
                await pilot.pause(0.1)
            ask = app.screen
            await pilot.press(*NORM, "tab", "7")
            await picture("asking")
            await pilot.press("enter")
            while ask._busy:
                await pilot.pause(0.2)
            await picture("hindsight")
            await pilot.press("escape", "c")
            await pilot.pause(1)
            await pilot.press("N")
            await picture("answer")


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    asyncio.run(shoot(Path(sys.argv[1])))
