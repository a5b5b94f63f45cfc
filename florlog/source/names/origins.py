"""Where the value of a name comes from, as a short text.

``florlog`` (the module), ``make_run`` (`florlog.run`), ``run``, ``log``, ``loop``, ``iteration``, ``module:NAME`` (an
imported module), ``from:MODULE:NAME``, ``def`` (a function or class defined in the file), ``builtin`` and ``other``,
which is everything that cannot be known.
"""

from __future__ import annotations

import sys
from typing import TypeAlias

Origins: TypeAlias = frozenset[str]
"""A name may be bound in several places, so it has a set of origins."""

OTHER: Origins = frozenset({"other"})
FLORLOG_NAMES = {"run": "make_run", "log": "log", "loop": "loop", "iteration": "iteration"}
RUN_METHODS = {"log": "log", "loop": "loop", "iteration": "iteration"}
KNOWN_LIBRARIES = sys.stdlib_module_names | {
    "jax", "lightning", "matplotlib", "mlflow", "numpy", "pandas", "scipy", "sklearn", "tensorboardX",
    "tensorflow", "torch", "torchvision", "tqdm", "transformers", "wandb",
}  # fmt: skip


def origin_of_attribute(origin: str, name: str) -> str:
    """The origin of an attribute of something that has a given origin."""
    if origin == "florlog":
        return FLORLOG_NAMES.get(name, "other")
    if origin == "run":
        return RUN_METHODS.get(name, "other")
    if origin.startswith(("module:", "from:")):
        return f"{origin}.{name}"
    return "other"


def root_module(origin: str) -> str:
    """The top-level module of a ``module:`` or ``from:`` origin; "" for other origins and for relative imports."""
    kind, _, rest = origin.partition(":")
    return rest.partition(":")[0].partition(".")[0] if kind in ("module", "from") else ""


def is_foreign(origin: str) -> bool:
    """Whether an origin certainly has nothing to do with florlog."""
    return origin.startswith("module:") or root_module(origin) in KNOWN_LIBRARIES
