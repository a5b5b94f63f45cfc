"""The browser, driven by keys in textual's test driver, over real stores; once in a real terminal."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pexpect
import pyte
import pytest
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input, Static

from florlog.inspect.selection import RecordSelection
from florlog.program.stores import listed_runs, open_store
from florlog.ui.app import Browser
from florlog.ui.ask_dialog import Ask
from florlog.ui.curves import Curves
from florlog.ui.iteration_tree import IterationTree
from florlog.ui.prompt import Prompt, TextPage
from florlog.ui.record_list import RecordList
from florlog.ui.run_list import RunList, Runs
from florlog.ui.run_screen import RunScreen
from florlog.ui.source_pane import SourcePane
from tests.inspect.stores import evil, train

pytestmark = pytest.mark.drawn_in_file(3)

SCRIPT = """
import torch
import florlog

torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with florlog.run("asked", overhead=float("inf")) as run:
    run.track(model=model, optimizer=optimizer)
    for epoch in run.loop("epoch", range(9)):
        for step in run.loop("step", range(3)):
            loss = model(torch.randn(8, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(loss=loss)
"""

Drive = Callable[[Pilot[None], RunScreen], Awaitable[None]]


def browse(store: Path, drive: Drive, *, run: str | None = None, size: tuple[int, int] = (80, 24)) -> None:
    """Open a store in the browser, and its run with Enter; then drive."""

    async def go() -> None:
        with open_store(store) as opened:
            app = Browser(opened, run, RecordSelection())
            async with app.run_test(size=size) as pilot:
                if run is None:
                    await listed(pilot)
                    await pilot.press("enter")
                await drive(pilot, await opened_run(pilot))

    asyncio.run(go())


PATIENCE = 240  # seconds; only a failing test waits so long, and a loaded machine


async def until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
    """Wait for what a key leads to: handlers, threads and drawing come after it in their own time."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        await pilot.pause(0.05)


async def listed(pilot: Pilot[None]) -> None:
    """The list of runs is there."""
    app = pilot.app
    await until(pilot, lambda: isinstance(app.screen, Runs) and app.screen.query_one("#runs", RunList).count)


async def opened_run(pilot: Pilot[None]) -> RunScreen:
    """The screen of a run, when the run has been analysed."""
    app = pilot.app
    await until(pilot, lambda: isinstance(app.screen, RunScreen) and app.screen.run_tree is not None)
    assert isinstance(app.screen, RunScreen)
    return app.screen


async def typed(pilot: Pilot[None], key: str, text: str) -> None:
    """A key that opens a prompt, and a line for it."""
    app, before = pilot.app, pilot.app.screen
    await pilot.press(key)
    await until(pilot, lambda: isinstance(app.screen, Prompt) and isinstance(app.focused, Input))
    await pilot.press(*text, "enter")
    await until(pilot, lambda: app.screen is before)


async def asking(pilot: Pilot[None]) -> Ask:
    """The key for hindsight, and its dialog, ready to be typed into."""
    app = pilot.app
    await pilot.press("h")
    await until(pilot, lambda: isinstance(app.screen, Ask) and isinstance(app.focused, Input))
    assert isinstance(app.screen, Ask)
    return app.screen


def told(pilot: Pilot[None], text: str) -> int:
    """How often something was said to the user."""
    return sum(text in note.message for note in pilot.app._notifications)


def shown(screen: RunScreen, what: str) -> str:
    return str(screen.query_one(what, Static).render())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("browser") / "store"
    train(path, overhead=float("inf"))
    train(path, lr=0.1, overhead=float("inf"))  # what a plan restores must not hang on the machine's load
    return path


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
def test_keys_lead_through_the_records(store: Path, size: tuple[int, int]) -> None:
    async def drive(pilot: Pilot[None], screen: RunScreen) -> None:
        records = screen.records
        with open_store(store) as opened:
            entries = {entry.lsn: entry for entry in opened.log(screen._run).scan()}

        def at() -> int:
            return records.lsn(records.cursor)

        def kind() -> str:
            return type(entries[at()].record).__name__

        await pilot.press("right_square_bracket")
        await until(pilot, lambda: kind() == "Commit")
        await pilot.press("i")
        await until(pilot, lambda: kind().startswith("Checkpoint"))
        await pilot.press("end")
        await until(pilot, lambda: kind() == "RunEnd")
        await pilot.press("m", "home")
        await until(pilot, lambda: kind() == "RunBegin")
        await pilot.press("apostrophe")
        await until(pilot, lambda: kind() == "RunEnd")
        await typed(pilot, "g", "epoch=1")
        await until(pilot, lambda: "epoch=1\n" in shown(screen, "#record"))
        assert "weight = float32[1, 3]" in shown(screen, "#record")
        before = entries[at()].prev_lsn
        assert before
        await pilot.press("p")
        await until(pilot, lambda: at() == before)
        await typed(pilot, "f", "--type LoopBegin")
        await until(pilot, lambda: records.count == 4)

    browse(store, drive, size=size)


def test_search_finds_in_its_own_run_only(store: Path) -> None:
    async def drive(pilot: Pilot[None], screen: RunScreen) -> None:
        records = screen.records
        await typed(pilot, "slash", "epoch 2")
        await until(pilot, lambda: "epoch 2" in str(records.line(records.cursor)))
        where = records.cursor
        await pilot.press("n")
        await until(pilot, lambda: told(pilot, "no further epoch 2"))
        assert records.cursor == where  # the newer run, which begins after this one, has one too
        await typed(pilot, "g", "3")
        await until(pilot, lambda: records.lsn(records.cursor) == 3)
        await pilot.press("N")
        await until(pilot, lambda: told(pilot, "no further epoch 2") == 2)
        await pilot.press("left_square_bracket")
        await until(pilot, lambda: told(pilot, "no further commit"))
        assert records.lsn(records.cursor) == 3

    with open_store(store) as opened:
        first = listed_runs(opened)[0].run
    browse(store, drive, run=first)


def test_curves_show_a_name_at_a_time_and_another_run_next_to_it(store: Path) -> None:
    async def drive(pilot: Pilot[None], screen: RunScreen) -> None:
        def curves() -> str:
            return shown(screen, "#curves")

        await pilot.press("c")
        await until(pilot, lambda: "12 numbers  ■ RECORDED" in curves())
        assert "epoch=0, step=0" in curves()
        await pilot.press("N", "N")
        await until(pilot, lambda: "no numbers to draw" in curves())  # a note
        await pilot.press("n", "n", "n")
        await until(pilot, lambda: "12 numbers" in curves())
        await pilot.press("v")
        await until(pilot, lambda: "0.1                     0.01" in curves())
        with open_store(store) as opened:
            first = listed_runs(opened)[0].run
        assert f"■ {first}" in curves()
        assert any(0x2800 < ord(char) < 0x2900 for char in curves())
        await pilot.press("y")
        await until(pilot, lambda: screen.app.clipboard.startswith("florlog inspect values looked-at-"))

    browse(store, drive, size=(120, 40))


def test_the_tree_chooses_what_the_source_and_the_plan_show(store: Path) -> None:
    async def drive(pilot: Pilot[None], screen: RunScreen) -> None:
        source = screen.query_one(SourcePane)
        line = next(
            row
            for row, (s, n) in enumerate(source._lines)
            if any("note" in h.names for h in s.statements.get(n, ()))
        )
        assert "epoch 2" in str(source.line(line))
        tree = screen.query_one(IterationTree)
        tree.focus()
        await until(pilot, lambda: tree.has_focus)
        await pilot.press("down", "down", "down")  # run, epoch, epoch=0, epoch=1
        await until(pilot, lambda: (item := screen.chosen()) is not None and item.at == "epoch=1")
        await pilot.press("enter")
        await until(pilot, lambda: "epoch=1" in str(screen.records.line(screen.records.cursor)))
        await pilot.press("P")
        await until(pilot, lambda: screen.records.overlay is not None)
        overlay = screen.records.overlay
        assert overlay is not None
        assert (("epoch", 1), ("step", 2)) in overlay
        assert (("epoch", 0),) not in overlay
        await pilot.press("y")
        await until(pilot, lambda: screen.app.clipboard.startswith("florlog inspect plan looked-at-"))
        assert "epoch=1" in screen.app.clipboard
        await pilot.press("P")
        await until(pilot, lambda: screen.records.overlay is None)
        await pilot.press("s")
        await until(pilot, lambda: "epoch 1" in str(source.line(line)))
        await pilot.press("y")
        await until(pilot, lambda: screen.app.clipboard.startswith("florlog inspect source looked-at-"))
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(screen.app.screen, TextPage))
        await pilot.press("escape")
        await until(pilot, lambda: screen.app.screen is screen)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(screen.app.screen, Runs))

    browse(store, drive)


def test_the_mouse_chooses_runs_records_and_names(store: Path) -> None:
    async def go() -> None:
        with open_store(store) as opened:
            app = Browser(opened, None, RecordSelection())
            async with app.run_test(size=(80, 24)) as pilot:
                await listed(pilot)
                await pilot.double_click("#runs", offset=(3, 0))
                screen = await opened_run(pilot)
                assert screen.run_tree is not None
                assert screen.run_tree.begin.params["lr"] == 0.01  # the first line is the oldest run
                await pilot.click("#list", offset=(5, 4))
                await until(pilot, lambda: screen.records.cursor == 4)
                await pilot.press("c")
                await until(pilot, lambda: "12 numbers" in shown(screen, "#curves"))
                await pilot.click("#curves", offset=(14, 0))  # the third name, which has three values
                await until(pilot, lambda: "0 numbers" in shown(screen, "#curves"))

    asyncio.run(go())


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store of `SCRIPT`; its replays find the environment in which it ran."""
    (tmp_path / "train.py").write_text(SCRIPT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    environment = os.environ | {"FLORLOG_STORE": str(tmp_path / "store")}
    subprocess.run([sys.executable, "train.py"], cwd=tmp_path, env=environment, check=True)
    return tmp_path / "store"


def test_the_gradient_norm_in_epoch_7_takes_five_keystrokes_and_an_expression(recorded: Path) -> None:

    async def drive(pilot: Pilot[None], screen: RunScreen) -> None:  # Enter was the first
        ask = await asking(pilot)
        await pilot.press(*"norm=model.weight.grad.norm()", "tab", "7", "enter")
        await until(pilot, lambda: "values from" in str(ask.query_one("#answer", Static).render()))
        answer = str(ask.query_one("#answer", Static).render())
        assert answer.startswith("3 values from 3 of 27 iterations")
        assert answer.count("PROVEN") == 3
        assert "epoch=7, step=2" in answer
        await pilot.press("escape")
        await until(
            pilot, lambda: screen.app.screen is screen and screen.query_one(Curves)._names[-1] == "norm"
        )
        await pilot.press("c", "N")
        await until(pilot, lambda: "3 numbers  ■ PROVEN" in shown(screen, "#curves"))

    browse(recorded, drive)


def test_values_are_shown_when_their_question_was_left(recorded: Path) -> None:
    async def drive(pilot: Pilot[None], screen: RunScreen) -> None:
        await asking(pilot)
        await pilot.press(*"twice=2*loss.item()", "tab", "7", "enter", "escape")
        await until(pilot, lambda: screen.app.screen is screen and told(pilot, "has been found"))
        await until(pilot, lambda: screen.query_one(Curves)._names[-1] == "twice")
        await asking(pilot)
        await pilot.press(*"of.nothing", "tab", "7", "enter", "escape")
        await until(pilot, lambda: screen.app.screen is screen and told(pilot, "NameError"))

    browse(recorded, drive)


def test_an_expression_that_fails_is_told_and_can_be_corrected(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    environment = os.environ | {"FLORLOG_STORE": str(tmp_path / "store"), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "train.py"], cwd=tmp_path, env=environment, check=True)

    async def drive(pilot: Pilot[None], screen: RunScreen) -> None:
        ask = await asking(pilot)
        expression, where = ask.query_one("#expression", Input), ask.query_one("#where", Input)
        for key in ("x", "tab", "7"):  # faster than they are handled, as over a slow line
            event = events.Key(key, key if len(key) == 1 else None)
            event.set_sender(pilot.app)
            assert pilot.app._driver is not None
            pilot.app._driver.send_message(event)
        await until(pilot, lambda: (expression.value, where.value) == ("x", "7"))
        await pilot.press("shift+tab", "backspace")
        await until(pilot, lambda: expression.has_focus and not expression.value)
        answer = ask.query_one("#answer", Static)
        await pilot.press(*"norm=", "enter")
        await until(pilot, lambda: "cannot read 'norm='" in str(answer.render()))
        await pilot.press(*"nothing_of_this_name", "enter")
        await until(pilot, lambda: "NameError" in str(answer.render()))

    browse(tmp_path / "store", drive)


def test_nothing_raw_reaches_the_screen(tmp_path: Path) -> None:
    runs = evil(tmp_path / "store")

    async def drive(pilot: Pilot[None], screen: RunScreen) -> None:
        for key in ("end", "s", "c", "r", "home"):
            await pilot.press(key)
            await pilot.pause()
        for row in range(screen.records.count):
            assert str(screen.records.line(row)).isprintable()
            screen.records.move_to(row)
            await pilot.pause()
            assert shown(screen, "#record").replace("\n", "").isprintable()

    for run in runs:
        browse(tmp_path / "store", drive, run=run)


def test_live_tail_shows_what_is_written_meanwhile(tmp_path: Path) -> None:
    import florlog

    async def go() -> None:
        with (
            florlog.run("live", store=tmp_path / "store") as run,
            open_store(tmp_path / "store") as opened,
        ):
            steps = run.loop("step", range(100))
            next(steps)
            app = Browser(opened, run.id, RecordSelection())
            async with app.run_test(size=(80, 24)) as pilot:
                await opened_run(pilot)
                await pilot.press("t")
                await until(pilot, lambda: told(pilot, "following"))
                before = app.screen.query_one(RecordList).count
                for _ in range(20):
                    next(steps)
                    run.log(x=1)
                await until(pilot, lambda: app.screen.query_one(RecordList).count >= before + 15)
            for _ in steps:
                pass

    asyncio.run(go())


def test_in_a_real_terminal_it_opens_shows_and_leaves(store: Path) -> None:
    screen = pyte.Screen(80, 24)
    stream = pyte.ByteStream(screen)
    command = [sys.executable, "-m", "florlog", "inspect", "--store", str(store)]
    environment = os.environ | {"TERM": "xterm-256color"}
    child = pexpect.spawn(command[0], command[1:], dimensions=(24, 80), env=environment, timeout=PATIENCE)

    def wait_for(text: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while text not in "\n".join(screen.display):
            assert time.monotonic() < deadline, "\n".join(screen.display)
            try:
                stream.feed(child.read_nonblocking(65536, timeout=1))
            except pexpect.TIMEOUT:
                pass

    wait_for("looked-at-")
    child.send("\r")
    wait_for("RunBegin")
    wait_for("complete, 12 iterations")
    child.send("\x1b[<0;40;6M\x1b[<0;40;6m")  # a click, as xterm reports it
    wait_for("5/")
    child.send("f")
    wait_for("--type Commit")
    child.send("--type RunEnd\r")
    wait_for("1/1")
    child.send("s")
    wait_for("loss = ")
    child.send("q")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
