"""A run's numbers as TensorBoard event files, hindsight values as names of their own."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from florlog.program.extras import need
from florlog.reading.columns import RECORDED
from florlog.reading.reader import RunView
from florlog.reading.render import fits_float, printable


def write_tensorboard(view: RunView, folder: Path) -> int:
    """Write scalars below ``folder``/run id; their number.

    A value's step counts the values of its name in order of iteration.  TensorBoard keeps 32 bits of each.
    """
    need("tensorboard", "export")
    from torch.utils.tensorboard import SummaryWriter

    steps: Counter[str] = Counter()
    values = [v for v in view.logged() if fits_float(v.value)]
    values.sort(
        key=lambda v: (v.trust != RECORDED, [index for _, index in v.path] if v.trust != RECORDED else [])
    )
    inside = (
        re.sub(r"[^A-Za-z0-9._-]", "_", view.id).lstrip(".") or "run"
    )  # an id made by somebody may be a path
    with SummaryWriter(str(folder / inside)) as writer:
        for value in values:
            name = printable(value.name)
            tag = name if value.trust == RECORDED else f"{name} ({value.trust})"
            writer.add_scalar(tag, float(value.value), steps[tag])
            steps[tag] += 1
    return steps.total()
