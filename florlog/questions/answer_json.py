"""A replay's answer in the JSON shape of ``florlog replay``."""

from __future__ import annotations

from typing import Any

from florlog.reading.render import jsonable
from florlog.redo.replaying import Replayed


def answer_json(replayed: Replayed) -> dict[str, Any]:
    """The answer as JSON has it: the run, the values and the plan."""
    values = [
        {
            "name": value.name,
            "statement": {"file": value.file, "line": value.line, "qualname": value.qualname},
            "path": dict(value.path),
            "value": jsonable(value.value),
            "trust": value.trust,
        }
        for value in replayed.answer.values
    ]
    return {"run": replayed.run, "values": values, "plan": replayed.view}
