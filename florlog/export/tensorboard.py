"""A run's numbers as TensorBoard event files, hindsight values as names of their own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from .._columns import RECORDED
from .._extras import need
from .._reader import RunView


def write_tensorboard(view: RunView, folder: Path) -> int:
    """Write scalars below ``folder``/run id; their number.

    A value's step counts the values of its name in order of iteration.  TensorBoard keeps 32 bits of each.
    """
    need("tensorboard", "export")
    from torch.utils.tensorboard import SummaryWriter

    steps: Counter[str] = Counter()
    values = [v for v in view.logged() if isinstance(v.value, int | float)]
    values.sort(
        key=lambda v: (v.trust != RECORDED, [index for _, index in v.path] if v.trust != RECORDED else [])
    )
    with SummaryWriter(str(folder / view.id)) as writer:
        for value in values:
            tag = value.name if value.trust == RECORDED else f"{value.name} ({value.trust})"
            writer.add_scalar(tag, float(value.value), steps[tag])
            steps[tag] += 1
    return steps.total()
