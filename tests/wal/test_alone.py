"""florlog-wal and florlog-recovery, built by themselves, work where nothing else of florlog can be imported."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from tests.wal.test_readme import README, readme_example

ROOT = README.parents[1]
PROJECTS = {"florlog": ROOT, "florlog-wal": ROOT / "wal", "florlog-recovery": ROOT / "recovery"}

RECORDED_RUN = """
from florlog_wal import CheckpointBegin, CheckpointEnd, Commit, LoopBegin, RunBegin, Statement, RunLog
with RunLog.open(".florlog", mode="w") as store:
    begin = RunBegin("r1", "digits", "record", "/t.py", (), "/", {}, {}, (), 0.0, 0, 1, 0)
    session = store.append(begin)
    store.append(Statement(1, "loop", "/t.py", "<module>", 1, b"", (), ("step",)), session=session)
    loop = store.append(
        LoopBegin((), "step", 0, 1, "for", 100, 0, (("/t.py", "<module>", 1),), 0.0, {}), session=session
    )
    for index in range(100):
        store.append(Commit(loop, index, 0, (), 1.0, b"", b"", b"", False), session=session)
        if index % 20 == 9:
            copied = store.append(CheckpointBegin(loop, index + 1), session=session)
            store.append(CheckpointEnd(copied, b"t" * 16, 1, 1, 0.0, 0.0), session=session)
"""


def project(name: str) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((PROJECTS[name] / "pyproject.toml").read_text("utf-8"))["project"]
    return table


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels of both layers, built without network."""
    pytest.importorskip("hatchling", reason="the wheels are built by hatchling")
    folder = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += ["--no-build-isolation", "--no-deps", "--wheel-dir", str(folder)]
    command += [str(PROJECTS["florlog-wal"]), str(PROJECTS["florlog-recovery"])]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return {wheel.name.partition("-")[0]: wheel for wheel in folder.glob("*.whl")}


def python(code: str, folder: Path, *wheels: Path) -> str:
    """What code prints in an interpreter that has the wheels and the libraries, and not the checkout.

    Without `site` an editable install's path file has no effect, so the environment's own folder is all there is.
    """
    paths = [str(folder / wheel.stem) for wheel in wheels]
    for wheel, target in zip(wheels, paths, strict=True):
        with ZipFile(wheel) as packed:
            packed.extractall(target)
    paths += [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    lead = f"import sys; sys.path += {paths!r}\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", lead + code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


@pytest.mark.parametrize("package", ["florlog_wal", "florlog_recovery"])
def test_a_wheel_has_its_package_whole_and_nothing_else(wheels: dict[str, Path], package: str) -> None:
    source = PROJECTS[package.replace("_", "-")] / package
    expected = {f"{package}/{file.name}" for file in source.iterdir() if file.is_file()}
    assert f"{package}/py.typed" in expected
    names = ZipFile(wheels[package]).namelist()
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_log_runs_its_readme_s_example_from_its_wheel(wheels: dict[str, Path], tmp_path: Path) -> None:
    code, printed = readme_example()
    where = "import florlog_wal\nprint(florlog_wal.__file__)\n"
    found, _, output = python(where + code, tmp_path, wheels["florlog_wal"]).partition("\n")
    assert Path(found).is_relative_to(tmp_path)
    assert output == printed


def test_recovery_runs_its_readme_s_example_from_both_wheels(wheels: dict[str, Path], tmp_path: Path) -> None:
    text = (PROJECTS["florlog-recovery"] / "README.md").read_text("utf-8")
    example = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert example is not None
    where = "import florlog_recovery\nprint(florlog_recovery.__file__)\n"
    code = RECORDED_RUN + where + example[1]
    both = (wheels["florlog_wal"], wheels["florlog_recovery"])
    found, _, output = python(code, tmp_path, *both).partition("\n")
    assert Path(found).is_relative_to(tmp_path)
    assert output == "restore 70 71\nrestore 90 90\n"


def test_the_three_distributions_have_one_version() -> None:
    versions = {name: project(name)["version"] for name in PROJECTS}
    assert set(versions.values()) == {versions["florlog"]}
    assert f"florlog-wal=={versions['florlog']}" in project("florlog-recovery")["dependencies"]


def test_florlog_needs_what_the_packages_that_it_ships_need() -> None:
    whole = set(project("florlog")["dependencies"])
    parts = {*project("florlog-wal")["dependencies"], *project("florlog-recovery")["dependencies"]}
    assert {need for need in parts if not need.startswith("florlog-wal")} <= whole


def test_each_distribution_has_the_repository_s_license() -> None:
    assert len({(folder / "LICENSE").read_bytes() for folder in PROJECTS.values()}) == 1
