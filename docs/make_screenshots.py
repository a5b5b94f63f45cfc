"""Writes docs/images/*.svg: the browser over a store, driven by keys.

python docs/make_screenshots.py STORE     a store with a run of examples/digits.py
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from florlog._session import open_store
from florlog.inspect.browser.app import Browser
from florlog.inspect.browser.ask import Ask
from florlog.inspect.browser.runscreen import RunScreen
from florlog.inspect.selection import Selection

IMAGES = Path(__file__).resolve().parent / "images"
NORM = "grad_norm=nn.utils.get_total_norm([p.grad for p in model.parameters()])"


async def shoot(path: Path) -> None:
    """Record, source, curve, and the answer to a question."""
    with open_store(path, "r") as store:
        app = Browser(store, None, Selection())
        async with app.run_test(size=(110, 32)) as pilot:
            await pilot.press("enter")
            while not (isinstance(app.screen, RunScreen) and app.screen.run_tree):
                await pilot.pause(0.1)
            await pilot.press(*["right_square_bracket"] * 3)
            await pilot.pause()
            app.save_screenshot("records.svg", str(IMAGES))
            for key, name in (("s", "source"), ("c", "curves")):
                await pilot.press(key)
                await pilot.pause(0.2)
                app.save_screenshot(f"{name}.svg", str(IMAGES))
            await pilot.press("r", "h")
            await pilot.pause()
            ask = app.screen
            assert isinstance(ask, Ask)
            await pilot.press(*NORM, "tab", "7", "enter")
            while ask._busy:
                await pilot.pause(0.2)
            await pilot.pause(0.2)
            app.save_screenshot("hindsight.svg", str(IMAGES))


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    asyncio.run(shoot(Path(sys.argv[1])))
