"""Which logged values are times, and which only look like it."""

from __future__ import annotations

import pytest

from florlog.source.skip.clocks import Clocks

SHOWN = {
    "time.time() - started": True,
    "round(time.perf_counter() - started, 3)": True,
    "f'{time.time() - started:.1f} s'": True,
    "steps / (time.time() - started)": True,
    "total": True,
    "self.began": True,
    "datetime.now().isoformat()": True,
    "loss": False,
    "loss.item() + time.time() - started": False,  # what else it shows would be hidden
    "decides": False,
    "passed": False,
    "counted": False,
    "time.sleep(1)": False,
    "other": False,
}


@pytest.mark.parametrize(("value", "shows"), SHOWN.items())
def test_a_value_is_a_time_if_it_comes_from_clocks_and_decides_nothing(value: str, shows: bool) -> None:
    text = f"""
import time
from datetime import datetime
import florlog

def train(run, steps, other):
    started = time.time()
    total = 0.0
    self.began = time.monotonic()
    decides = time.time()
    passed = time.time() - decides
    counted = 0
    other = time.time()
    for step in run.loop("step", range(steps)):
        loss = model(passed)
        if time.time() - decides > 60:
            break
        total += time.time() - started
        counted = counted + 1
        print(total, started)
        run.log(shown={value})
"""
    line = text[: text.index("run.log(")].count("\n") + 1
    assert Clocks(text, "train.py").shows_time(line, "shown") is shows
    assert not Clocks(text, "train.py").shows_time(line, "another")


def test_a_text_that_is_no_python_has_no_times() -> None:
    assert not Clocks("started = time.time(", "train.py").times
