"""Values as a pandas DataFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from florlog.reading.columns import TRUST, Column, Columns
from florlog.reading.render import printable

if TYPE_CHECKING:
    import pandas as pd


def frame(columns: Columns) -> pd.DataFrame:
    """The table in pandas.

    Loops are Int64; names float64, int64 or bool, with gaps Int64 or boolean, others what their values share;
    trust is an ordered category, so that ``frame[frame.trust >= "PROVEN"]`` is a question.
    """
    import pandas as pd  # here: importing it takes longer than all else that reading a log needs

    data: dict[str, Any] = {
        name: pd.arrays.IntegerArray(column.values, ~column.present) for name, column in columns.loops.items()
    }
    for name, column in columns.names.items():
        data[name if name not in data else f"{name}_value"] = _series(column)
    data["trust"] = pd.Categorical.from_codes(columns.trust, categories=pd.Index(TRUST), ordered=True)
    try:
        return pd.DataFrame(data)
    except UnicodeEncodeError:  # half a letter in a name, which pandas' own text cannot contain
        return pd.DataFrame({printable(name): column for name, column in data.items()})


def _series(column: Column) -> Any:
    import pandas as pd

    values, present = column.values, column.present
    if values.dtype == np.float64:
        return np.where(present, values, np.nan)
    if values.dtype != object:
        if present.all():
            return values
        kind = pd.arrays.BooleanArray if values.dtype == bool else pd.arrays.IntegerArray
        return kind(values, ~present)
    held = pd.Series(values, dtype=object)
    try:
        return held.infer_objects()
    except UnicodeEncodeError:
        return held
