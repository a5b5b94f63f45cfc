"""Which files belong to a program: what it imports from wherever the user's own modules lie."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from florlog.program.environment import is_local
from florlog.program.import_roots import is_imported_from_a_root, put_into
from florlog.programs.program_files import module_file, program_files


def write(root: Path, **texts: str) -> None:
    """Files by their paths, with ``__`` for a slash."""
    for name, text in texts.items():
        path = root / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def modules(script: Path, root: Path | None = None) -> set[str]:
    return set(program_files(str(script), root or script.parent).values())


def package(root: Path) -> None:
    """A package whose ``__init__`` and trainer import by relative names."""
    write(
        root,
        pkg__trainer="from . import data\nfrom .deep.model import Net",
        pkg__data="",
        pkg__deep__model="",
    )
    (root / "pkg" / "__init__.py").write_text("from .trainer import Trainer")
    (root / "pkg" / "deep" / "__init__.py").write_text("from ..data import x")


PACKAGE = {"__main__", "pkg", "pkg.trainer", "pkg.data", "pkg.deep", "pkg.deep.model"}


def test_a_package_is_found_on_pythonpath(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path / "src")
    write(tmp_path / "scripts", train="import pkg")
    monkeypatch.chdir(tmp_path / "scripts")
    assert modules(tmp_path / "scripts" / "train.py") == {"__main__"}
    monkeypatch.syspath_prepend(tmp_path / "src")
    assert modules(tmp_path / "scripts" / "train.py") == PACKAGE
    assert is_local(str(tmp_path / "src" / "pkg" / "trainer.py"), "")


def test_a_package_is_found_where_setuptools_has_installed_it_editable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path / "src")
    write(tmp_path, train="from pkg.trainer import Trainer")
    finder = ModuleType("__editable___pkg_0_1_finder")
    finder.MAPPING = {"pkg": str(tmp_path / "src" / "pkg")}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, finder.__name__, finder)
    kind = type(
        "_EditableFinder", (), {"__module__": finder.__name__, "find_spec": classmethod(lambda *_: None)}
    )
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, kind])
    assert modules(tmp_path / "train.py") == PACKAGE


@pytest.mark.parametrize(
    "added",
    [
        "sys.path.append(os.path.join(os.path.dirname(__file__), '..', 'src'))",
        "ROOT = Path(__file__).resolve().parent.parent\nsys.path.insert(0, str(ROOT / 'src'))",
        "sys.path.insert(0, str(Path(__file__).parents[1].joinpath('src')))",
        """\
HERE = os.path.abspath(os.path.dirname(__file__))
sys.path.append(HERE + 1)
sys.path.append(unknown())
sys.path.append(os.path.normpath(os.path.join(HERE, '../src')))
""",
    ],
)
def test_a_package_is_found_where_the_script_adds_it_to_the_path(tmp_path: Path, added: str) -> None:
    package(tmp_path / "src")
    write(tmp_path / "scripts", train=f"{added}\nimport pkg")
    assert modules(tmp_path / "scripts" / "train.py") == PACKAGE


def test_installed_packages_and_libraries_are_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "lib" / "site-packages"
    package(installed)
    write(tmp_path / "checkouts", torch__optimizer="", florlog__run="")
    (tmp_path / "checkouts" / "torch" / "__init__.py").write_text("import torch.optimizer")
    write(tmp_path, train="import pkg, torch, florlog.run, os.path")
    monkeypatch.syspath_prepend(installed)
    monkeypatch.syspath_prepend(tmp_path / "checkouts")
    assert modules(tmp_path / "train.py") == {"__main__"}
    assert not is_imported_from_a_root(str(tmp_path / "checkouts" / "torch" / "optimizer.py"))
    assert not is_local(str(installed / "pkg" / "trainer.py"), str(tmp_path / "train.py"))
    write(tmp_path, torch="import other", other="")  # next to the script it is the user's
    assert modules(tmp_path / "train.py") == {"__main__", "torch", "other"}


@pytest.mark.parametrize("place", ["libs", "."])
def test_what_pip_has_put_into_a_directory_on_the_path_is_a_library(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / place
    package(installed)
    write(installed, alone="", own="", pkg_more__data="")
    write(tmp_path, train="import pkg, alone, own, pkg_more.data")
    monkeypatch.syspath_prepend(installed)
    assert modules(tmp_path / "train.py") == {*PACKAGE, "alone", "own", "pkg_more", "pkg_more.data"} - {
        "pkg_more"
    }
    put_into.cache_clear()
    record = installed / "pkg-1.0.dist-info" / "RECORD"
    record.parent.mkdir()
    record.write_text(
        "../../bin/pkg,,\npkg/__init__.py,sha256=x,1\npkg/data.py,,\nalone.py,,\npkg-1.0.dist-info/RECORD,,\n"
    )
    assert modules(tmp_path / "train.py") == {"__main__", "own", "pkg_more.data"}
    assert not is_local(str(installed / "pkg" / "trainer.py"), str(tmp_path / "train.py"))
    assert not is_local(str(installed / "alone.py"), str(tmp_path / "train.py"))
    assert is_local(str(installed / "own.py"), str(tmp_path / "train.py"))
    assert is_local(str(installed / "pkg_more" / "data.py"), str(tmp_path / "train.py"))


def test_a_module_to_run_is_found_without_importing_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path / "src")
    write(tmp_path / "src", pkg__train="from . import data")
    (tmp_path / "src" / "pkg" / "deep" / "__main__.py").write_text("")
    (tmp_path / "src" / "pkg" / "__init__.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(tmp_path / "src")
    here = tmp_path / "elsewhere"
    assert module_file("pkg.train", here) == tmp_path / "src" / "pkg" / "train.py"
    assert module_file("pkg.deep", here) == tmp_path / "src" / "pkg" / "deep" / "__main__.py"
    assert module_file("pkg.nothing", here) is None
    assert module_file("json.tool", here) is None
    assert modules(tmp_path / "src" / "pkg" / "train.py", here) == {"__main__", "pkg", "pkg.data"}
