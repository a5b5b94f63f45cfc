"""What a run ran on: interpreter, libraries, machine, and the source text of everything local.

*Local* is what the user may edit between recording and replay: the script, and each imported module whose
file lies below the script's directory or the working directory and in no installation directory.
"""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from pathlib import Path
from typing import Any

import torch

_OWN = {"florlog", "florlog_wal", "florlog_recovery"}
_INSTALLED = ("site-packages", "dist-packages")


def environment() -> dict[str, Any]:
    """Versions and settings that decide whether results repeat bit for bit."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "torch": str(torch.__version__),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "pid": os.getpid(),
    }


def rank() -> tuple[int, int]:
    """Rank and world size, from the variables that torchrun and its peers set."""

    def number(name: str, default: int) -> int:
        try:
            return int(os.environ.get(name, default))
        except ValueError:
            return default

    return number("RANK", 0), number("WORLD_SIZE", 1)


def main_script() -> str:
    """Absolute path of the running script, or "" in an interactive interpreter."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return str(Path(file).absolute()) if file else ""


def is_local(file: str, script: str) -> bool:
    """Whether a module's file is the user's own source."""
    if not file.endswith(".py") or not any(file.startswith(root + os.sep) for root in _roots(script)):
        return False
    path = Path(file)
    if any(part in _INSTALLED for part in path.parts):
        return False
    return not path.is_relative_to(sysconfig.get_paths()["stdlib"])


def _roots(script: str) -> set[str]:
    """The directories below which local modules lie, as text: most of a thousand modules lie elsewhere."""
    return {
        root.rstrip(os.sep) for root in (str(Path.cwd()), str(Path(script).parent) if script else "") if root
    }


def local_sources(script: str) -> list[tuple[str, str, str]]:
    """Absolute path, module name and text of the script and of every local module imported so far."""
    found: dict[str, tuple[str, str, str]] = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or name.split(".")[0] in _OWN:
            continue
        path = os.path.join(os.getcwd(), file)  # noqa: PTH109, PTH118 - of every module; pathlib takes its time
        if path in found or not (path == script or is_local(path, script)):
            continue
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        found[path] = (path, "__main__" if path == script else name, text)
    return sorted(found.values())
