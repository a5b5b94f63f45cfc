"""Programs by chance: resumed equal or refused, replayed equal or not PROVEN; ``make programs`` tries thousands."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, example, given, settings

from tests.state.heap.kinds import KINDS, Kind

from .harness import Nursery
from .random_programs import Program, outcome, programs


def kind(name: str) -> Kind:
    return next(kind for kind in KINDS if kind.name == name)


@settings(
    max_examples=6,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(programs())
@example(Program(kind("a name that is deleted"), acts=True))
@example(Program(kind("endless loader"), "function", acts=True, kill=3))
@example(Program(kind("a new head"), "function", acts=True, kill=5))
@example(Program(kind("class attribute"), "module", kill=5, hands_free=True))
def test_a_program_is_resumed_and_replayed_as_it_ran(nursery: Nursery, program: Program) -> None:
    found = outcome(nursery, nursery.directory / "program", program)
    assert not found.wrong, found.said


def test_a_state_that_no_image_has_is_noticed(nursery: Nursery) -> None:
    """The twin of the test above, with state that lies outside of Python: its resume has to start over."""
    hidden = Kind("hidden", "import ctypes\nh = ctypes.c_int(0)", "h.value += 1", "h.value")
    found = outcome(nursery, nursery.directory / "program", Program(hidden, acts=True, kill=5))
    assert found.resumed == "equal"
    assert "the run differs" in found.said
