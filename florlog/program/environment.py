"""What a run ran on: interpreter, libraries, machine, and the source text of everything local.

*Local* is what the user may edit between recording and replay: the script, and each imported module whose
file lies below the script's directory, the working directory or a directory of the user's on ``sys.path``
(`florlog.program.import_roots`), and in no installation directory.
"""

from __future__ import annotations

import functools
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from florlog.program.import_roots import OWN, is_imported_from_a_root, is_installed, user_modules
from florlog.program.opened_runs import in_child
from florlog.program.process import this_process
from florlog.source.names.excerpts import excerpt_of

CELLS = "notebook"
"""The key under which a notebook's run keeps the facts of its cells."""
ADOPTED = "adopted"
"""The key under which a run has the modules of frameworks that it adopted: module -> version and digest."""
CHILD = "child"
"""The key under which a run says that it was recorded in a process which the program has made."""
HANDS_FREE = "hands_free"
"""The key under which a run of a script that does not open it itself says so."""
VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_CBWR", "MKL_DYNAMIC", "KMP_BLOCKTIME",
    "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "PYTHONHASHSEED", "CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES",
    "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)  # fmt: skip
_NUMERIC = ("python", "implementation", "torch", "machine", "deterministic", "cuda", "libraries", "variables")


def changes(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What may change numbers and is not as it was recorded, as text.

    A replay takes the recorded number of torch's threads; those of NumPy's libraries follow the variables and the
    cores.  A library counts if both have it.
    """
    found = []
    for key in _NUMERIC:
        if key not in then or key not in now or then[key] == now[key]:
            continue
        if isinstance(then[key], dict):
            names = (
                then[key].keys() & now[key].keys()
                if key == "libraries"
                else then[key].keys() | now[key].keys()
            )
            found += [
                f"{name} was {then[key].get(name, 'not set')}, and is {now[key].get(name, 'not set')}"
                for name in sorted(names)
                if then[key].get(name) != now[key].get(name)
            ]
        else:
            found.append(f"{key} was {then[key]}, and is {now[key]}")
    if then.get("cpus", 0) != now.get("cpus", 0) and not thread_variables(then):
        found.append(f"the number of processors was {then.get('cpus')}, and is {now.get('cpus')}")
    return found


def thread_variables(environment: dict[str, Any]) -> dict[str, str]:
    """The variables that set how many threads libraries use."""
    variables: dict[str, str] = environment.get("variables", {})
    return {name: value for name, value in variables.items() if name.endswith("_NUM_THREADS")}


def _libraries() -> dict[str, str]:
    """The version of each imported library that has one."""
    modules = {name: module for name, module in list(sys.modules.items()) if "." not in name}
    found = {name: getattr(module, "__dict__", {}).get("__version__") for name, module in modules.items()}
    return {
        name: str(version)
        for name, version in sorted(found.items())
        if isinstance(version, str) and name not in OWN and name != "__main__"
    }


def environment() -> dict[str, Any]:
    """Versions and settings that decide whether results repeat bit for bit."""
    import torch  # here: it takes longer to import than all else that reading a log needs

    hands_free, notebook = this_process.hands_free, this_process.notebook
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
        "libraries": _libraries(),
        # Those that decide numbers; others may contain secrets.
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "hash": _hash(),
        "pid": os.getpid(),
        **({} if hands_free is None else hands_free.facts),
        **({CELLS: dict(notebook.facts)} if notebook.file else {}),
        **_adopted(),
        **({CHILD: True} if in_child() else {}),
    }


def _adopted() -> dict[str, Any]:
    origins = filter(None, (excerpt_of(adopted.text) for adopted in this_process.adopted.values()))
    found = {origin.module: [origin.version, origin.digest] for origin in origins}
    return {ADOPTED: found} if found else {}


def is_hands_free(facts: Mapping[str, Any]) -> bool:
    """Whether a run with these facts of its environment was recorded hands-free."""
    return bool(facts.get(HANDS_FREE))


def rank() -> tuple[int, int]:
    """Rank and world size, from the variables that torchrun and its peers set."""

    def number(name: str, default: int) -> int:
        try:
            return int(os.environ.get(name, default))
        except ValueError:
            return default

    return number("RANK", 0), number("WORLD_SIZE", 1)


def main_script() -> str:
    """Absolute path of the running script, that of a notebook's program, or "" in an interactive interpreter."""
    if notebook := this_process.notebook.file:
        return notebook
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return _absolute(file, os.getcwd()) if file else ""  # noqa: PTH109 - asked once for each module


def own_directories(script: str) -> list[str]:
    """The working directory and that of a script, where there is one."""
    return [os.getcwd(), *([os.path.dirname(os.path.abspath(script))] if script else [])]  # noqa: PTH100, PTH109, PTH120


@functools.cache
def _absolute(file: str, directory: str) -> str:
    return str(Path(directory, file).absolute())


def is_local(file: str, script: str) -> bool:
    """Whether a module's file is the user's own source."""
    return _below(file, os.getcwd(), script)  # noqa: PTH109


def _below(file: str, directory: str, script: str) -> bool:
    if not file.endswith(".py") or is_installed(file):
        return False
    return file.startswith(_roots(directory, script)) or is_imported_from_a_root(file)


def has_same_hashes(then: Mapping[str, Any]) -> bool:
    """Whether text has the hashes, and a set of it the order, that it had in another environment."""
    return bool(then.get("hash") == _hash())


def _hash() -> int:
    # PYTHONHASHSEED does not tell: scripts set it for themselves, when it is too late.
    return hash("florlog")


@functools.cache
def _roots(directory: str, script: str) -> tuple[str, ...]:
    """The directories below which local modules lie, as text: most of a thousand modules lie elsewhere."""
    roots = (directory, str(Path(script).parent) if script else "")
    return tuple({root.rstrip(os.sep) + os.sep for root in roots if root})


def is_own(module: str) -> bool:
    """Whether a module is florlog's own."""
    return module.partition(".")[0] in OWN


def module_file(module: Any) -> str | None:
    """A module's file; modules that are made when they are asked for something are not asked."""
    held = getattr(module, "__dict__", None)
    file = held.get("__file__") if isinstance(held, dict) else None
    return file if isinstance(file, str) else None


def local_sources(script: str) -> list[tuple[str, str, str]]:
    """Absolute path, module name and text of the script and of every local module imported so far.

    Of modules that are adopted, the excerpts.
    """
    found: dict[str, tuple[str, str, str]] = {}
    if this_process.notebook.file:
        found[script] = (script, "__main__", this_process.notebook.text)
    for path, adopted in this_process.adopted.items():
        found[path] = (path, adopted.module, adopted.text)
    planned = {} if this_process.hands_free is None else this_process.hands_free.files
    directory = os.getcwd()  # noqa: PTH109 - of every module; pathlib takes its time
    files = [(name, module_file(module)) for name, module in user_modules(sys.modules)]
    for name, file in [*files, *((module, file) for file, module in planned.items())]:
        if file is None or is_own(name):
            continue
        path = file if file.startswith(os.sep) else os.path.join(directory, file)  # noqa: PTH118
        if path in found or not (path == script or path in planned or _below(path, directory, script)):
            continue
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        found[path] = (path, "__main__" if path == script else name, text)
    return sorted(found.values())
