"""The directories from which the user's own modules are imported.

Besides the script's directory and the working directory these are the entries of ``sys.path`` that belong to no
installation: PYTHONPATH, and the projects that are installed *editable*, whose files stay where they are (as with a
``src`` layout).  A well-known library stays a library wherever it lies, and so does what pip has put into any such
directory (``pip install --target``, as in images of clusters).  What lies beside florlog itself is no part of the
program.
"""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

OWN = frozenset({"florlog", "florlog_wal", "florlog_recovery"})
"""florlog's own packages."""
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")  # parts of a path, as text
_STDLIB = sysconfig.get_paths()["stdlib"] + os.sep
_SCRIPTS = sysconfig.get_paths()["scripts"]
_BESIDE = str(Path(__file__).parents[2])
"""Where florlog lies: its own tests and tools, if it is installed editable."""
_LIBRARIES = frozenset({
    "accelerate", "diffusers", "flax", "gymnasium", "ignite", "jax", "jaxlib", "keras", "lightning",
    "lightning_fabric", "matplotlib", "numpy", "optax", "pandas", "peft", "pytorch_lightning", "scipy", "sklearn",
    "tensorflow", "timm", "tokenizers", "torch", "torchaudio", "torchvision", "transformers", "triton", "trl", "vllm",
})  # fmt: skip
"""Libraries that people also install editable, to build or to patch them."""


def is_installed(file: str) -> bool:
    """Whether a file belongs to Python itself or to an installed library."""
    return any(part in file for part in _INSTALLED) or file.startswith(_STDLIB) or _is_put(file)


def _is_put(file: str) -> bool:
    """Whether a file belongs to what pip has put into a directory on ``sys.path``."""
    for entry in sys.path:
        if entry and file.startswith(entry + os.sep):
            top = file[len(entry) + 1 :].partition(os.sep)[0].removesuffix(".py")
            if top in put_into(entry):
                return True
    return False


@functools.cache
def put_into(root: str) -> frozenset[str]:
    """The top-level packages and modules that pip has put into a directory, by the lists that it leaves."""
    found: set[str] = set()
    for record in Path(root).glob("*.dist-info/RECORD"):
        with suppress(OSError, UnicodeDecodeError):
            found.update(
                line.partition(",")[0].partition("/")[0] for line in record.read_text("utf-8").splitlines()
            )
    return frozenset(name.removesuffix(".py") for name in found)


def user_modules(names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Of imported modules those that may be the user's: all but those of installed packages, which are nearly all."""
    packages = {"__main__": False}
    for name in list(names):
        package = name.partition(".")[0]
        if package not in packages:
            packages[package] = _is_installed_whole(package)
        if not packages[package]:
            yield name, sys.modules.get(name)  # None: another thread has removed it


def _is_installed_whole(package: str) -> bool:
    """Whether a top-level package is an installed library, with all of its modules below its directory."""
    held = getattr(sys.modules.get(package), "__dict__", {})
    file, path = held.get("__file__"), held.get("__path__")
    if not isinstance(file, str) or not is_installed(file):
        return False
    return path is None or (isinstance(path, list) and path == [os.path.dirname(file)])  # noqa: PTH120 - of each


def is_library(package: str) -> bool:
    """Whether a top-level package is florlog's own, or a well-known library's."""
    return package in OWN or package in _LIBRARIES


def import_roots() -> tuple[str, ...]:
    """The directories on ``sys.path`` and of editable installs in which the user's modules lie, in their order."""
    return _roots(tuple(sys.path), len(sys.meta_path))


@functools.lru_cache(maxsize=16)
def _roots(path: tuple[str, ...], finders: int) -> tuple[str, ...]:
    """As `import_roots`; ``path`` and the number of ``finders`` are what the answer is kept for."""
    found = [str(Path(entry).absolute()) for entry in path if entry]
    found += [str(Path(place).parent) for finder in sys.meta_path for place in _editable(finder)]
    return tuple(
        dict.fromkeys(
            root
            for root in found
            if not is_installed(root + os.sep)
            and root not in (_SCRIPTS, _BESIDE)
            and not root.endswith(".zip")
        )
    )


def _editable(finder: Any) -> list[str]:
    """Where the packages lie that one of setuptools' finders of editable installs finds."""
    name = str(getattr(finder, "__module__", ""))
    if not name.startswith("__editable__"):
        return []
    mapping = getattr(sys.modules.get(name), "MAPPING", None)
    return [str(place) for place in mapping.values()] if isinstance(mapping, dict) else []


def is_imported_from_a_root(file: str) -> bool:
    """Whether an absolute path lies below one of the directories, and is no library's."""
    roots = [root for root in import_roots() if file.startswith(root + os.sep)]
    if not roots:
        return False
    below = file[len(max(roots, key=len)) + 1 :]
    return not is_library(below.partition(os.sep)[0].removesuffix(".py"))
