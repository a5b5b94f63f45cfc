"""What an installed florlog is: three typed packages, one command, and nothing that happens on import."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytestmark = pytest.mark.wheel

PACKAGES = ["florlog", "florlog_recovery", "florlog_wal"]

installed = pytest.mark.skipif(
    "FLORLOG_TEST_INSTALLED" not in os.environ, reason="the packages come from the checkout here"
)


def python(code: str, cwd: Path) -> str:
    """Run code in a fresh interpreter and give back its output."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@installed
@pytest.mark.parametrize("package", PACKAGES)
def test_the_packages_under_test_are_the_installed_ones(package: str, tmp_path: Path) -> None:
    file = python(f"import {package}; print({package}.__file__)", tmp_path)
    assert Path(file).is_relative_to(sysconfig.get_path("purelib"))


@installed
def test_the_wheel_holds_the_three_packages_and_nothing_else() -> None:
    files = importlib.metadata.files("florlog") or []
    tops = {file.parts[0] for file in files if ".." not in file.parts}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert any(file.name == "LICENSE" for file in files)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_that_it_is_typed(package: str) -> None:
    assert importlib.resources.files(package).joinpath("py.typed").is_file()


def test_the_command_leads_to_a_function() -> None:
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="florlog")
    assert callable(command.load())


@pytest.mark.parametrize("package", ["florlog_wal", "florlog_recovery"])
def test_a_lower_layer_runs_without_what_is_above_it(package: str, tmp_path: Path) -> None:
    code = (
        f"import sys, pkgutil, importlib, {package} as p\n"
        "for m in pkgutil.walk_packages(p.__path__, p.__name__ + '.'): importlib.import_module(m.name)\n"
        "above = {'torch', 'pandas', 'florlog', 'florlog_recovery'} - {p.__name__}\n"
        "print(sorted(above & set(sys.modules)))"
    )
    assert python(code, tmp_path) == "[]"


def test_importing_florlog_changes_nothing(tmp_path: Path) -> None:
    code = (
        "import os, random, signal, sys, threading\n"
        "import numpy, pandas, torch\n"
        "def state():\n"
        "    return [os.getcwd(), os.listdir(), dict(os.environ), random.getstate(), sys.path[:],\n"
        "            str(numpy.random.get_state()), torch.get_rng_state().tolist(), sys.excepthook,\n"
        "            [signal.getsignal(s) for s in signal.valid_signals()], threading.active_count(),\n"
        "            sys.gettrace(), sys.getprofile(), sys.meta_path[:], torch.get_num_threads(),\n"
        "            torch.are_deterministic_algorithms_enabled(), torch.get_default_dtype()]\n"
        "before = state()\n"
        "import florlog\n"
        "for name in florlog.__all__:\n"  # the modules that are imported when a name is first used
        "    getattr(florlog, name)\n"
        "print(before == state())"
    )
    assert python(code, tmp_path) == "True"
    assert list(tmp_path.iterdir()) == []


def test_importing_florlog_registers_nothing_for_forks(tmp_path: Path) -> None:
    """A program that forks for its own purposes runs no code of florlog's in the child before it opens a run."""
    code = (
        "import os, sys\n"
        "import numpy, pandas, torch\n"
        "register, callers = os.register_at_fork, []\n"
        "def noted(**functions):\n"
        "    callers.append(sys._getframe(1).f_globals['__name__'])\n"
        "    register(**functions)\n"
        "os.register_at_fork = noted\n"
        "import florlog\n"
        "for name in florlog.__all__:\n"
        "    getattr(florlog, name)\n"
        "print(sorted({name for name in callers if name.startswith('florlog')}))"
    )
    assert python(code, tmp_path) == "[]"


def test_a_name_of_florlog_is_imported_when_it_is_first_used(tmp_path: Path) -> None:
    code = (
        "import sys, florlog\n"
        "assert set(florlog.__all__) <= set(dir(florlog))\n"
        "before = 'torch' in sys.modules, 'log' in vars(florlog), hasattr(florlog, 'losses')\n"
        "florlog.log\n"
        "print(before, 'torch' in sys.modules, 'log' in vars(florlog))"
    )
    assert python(code, tmp_path) == "(False, False, False) True True"


def test_what_a_program_does_before_its_run_is_timed_without_imports_of_florlog(tmp_path: Path) -> None:
    code = (
        "import time\n"
        "began = time.perf_counter()\n"
        "import florlog\n"
        "from florlog.program.loading import seconds_since_import\n"
        "florlog.run\n"
        "imports = time.perf_counter() - began\n"
        "time.sleep(0.1)\n"
        "taken = seconds_since_import()\n"
        "print(0.1 <= taken < 0.1 + imports / 2, imports, taken)"
    )
    assert python(code, tmp_path).startswith("True")
