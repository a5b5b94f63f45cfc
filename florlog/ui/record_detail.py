"""A record in full: its fields decoded, arrays summed up with a histogram, and its values' bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from florlog_wal import Array, Entry, Path, Unencodable, encode_value
from rich.text import Text

from florlog.inspect.record_forms import TYPE_COLOURS, path_text
from florlog.reading.render import brief, printable

_BARS = " ▁▂▃▄▅▆▇█"
_HEX_BYTES = 128


def record_detail(entry: Entry, path: Path) -> Text:
    """The text below the record list."""
    name = type(entry.record).__name__
    text = Text()
    text.append(f"{name} ", f"bold {TYPE_COLOURS[name]}")
    text.append(
        f"LSN {entry.lsn}, {entry.nbytes} bytes, session {entry.session}, previous {entry.prev_lsn}\n"
    )
    text.append(f"at {path_text(path)}\n")
    for line, style in _values(getattr(entry.record, "values", ())):
        text.append(line + "\n", style)
    for field in dataclasses.fields(entry.record):
        value = getattr(entry.record, field.name)
        if field.name == "values":
            continue
        if isinstance(value, bytes):
            text.append(f"{field.name}: {value.hex() or '-'}\n")
        elif isinstance(value, dict):
            text.append(f"{field.name}:\n")
            for key, item in list(value.items())[:64]:
                text.append(f"  {brief(key, 30)}: {brief(item, 120)}\n")
        elif field.name == "frames" or field.name == "failure":
            text.append(f"{field.name}: {brief(value, 300)}\n")
        else:
            text.append(f"{field.name}: {brief(value, 300)}\n")
    return text


def _values(values: tuple[tuple[int, str, object], ...]) -> Iterator[tuple[str, str]]:
    """Lines and their styles."""
    for statement, name, value in values[:64]:
        yield f"  {printable(name[:60])} = {brief(value, 200)}   (statement {statement})", "bold"
        if isinstance(value, Array):
            yield "    " + tensor_summary(value), ""
        try:
            data = encode_value(value)
        except Unencodable:
            continue
        shown = data[:_HEX_BYTES].hex(" ")
        yield f"    hex {shown}" + (f" ... {len(data)} bytes" if len(data) > _HEX_BYTES else ""), "dim"


def tensor_summary(array: Array) -> str:
    """Least, mean and greatest of an array's finite numbers, and their histogram."""
    import torch  # here: the browser opens without it

    from florlog.state.tensors import tensor_from

    try:
        tensor = tensor_from(array.dtype, array.shape, array.data).to(torch.float64).reshape(-1)
    except (ValueError, RuntimeError) as error:
        return printable(f"cannot be read: {error}".splitlines()[0][:120])
    finite = tensor[tensor.isfinite()]
    if not len(finite):
        return f"{len(tensor)} numbers, none finite"
    low, high = float(finite.min()), float(finite.max())
    counts = torch.histc(finite, 32, low, high if high > low else low + 1).tolist()
    bars = "".join(_BARS[round(8 * count / max(counts))] for count in counts)
    lost = f", {len(tensor) - len(finite)} not finite" if len(finite) < len(tensor) else ""
    return f"{low:.4g} .. {float(finite.mean()):.4g} .. {high:.4g}{lost} [{bars}]"
