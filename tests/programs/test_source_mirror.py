"""The recorded source in a directory of its own: the same program, and nothing of the user's touched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from florlog.programs.finders import LocalModuleFinder
from florlog.programs.permission import Permit
from florlog.programs.scripts import run_as_main
from florlog.programs.source_mirror import SourceMirror
from florlog.source.edit.instrument import Instrumenter

PERMIT = Permit("run")
SCRIPT = """\
from pathlib import Path
import package.part
HERE = Path(__file__).parent
FOUND = (package.part.NAME, (HERE / "data.txt").read_text(), (HERE.parent / "shared" / "more.txt").read_text())
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    (directory / "package" / "__pycache__").mkdir(parents=True)
    (directory / ".git").mkdir()
    (tmp_path / "shared").mkdir()
    (directory / "train.py").write_text("raise SystemExit('the present script')")
    (directory / "package" / "__init__.py").write_text("")
    (directory / "package" / "part.py").write_text("NAME = 'present'\n")
    (directory / "data.txt").write_text("data")
    (tmp_path / "shared" / "more.txt").write_text("more")
    return directory


def recorded(project: Path) -> dict[str, str]:
    return {
        str(project / "train.py"): SCRIPT,
        str(project / "package" / "__init__.py"): "",
        str(project / "package" / "part.py"): "NAME = 'recorded'\n",
    }


def test_the_recorded_files_run_and_find_the_present_data(project: Path) -> None:
    before = sorted(project.parent.rglob("*"))
    with SourceMirror(PERMIT, str(project / "train.py"), recorded(project)) as mirror:
        files = {mirror.path(file) for file in recorded(project)}
        try:
            with LocalModuleFinder(files, Instrumenter()):
                assert run_as_main(mirror.script).FOUND == ("recorded", "data", "more")
        finally:
            for name in ("package", "package.part"):
                sys.modules.pop(name, None)
        script = Path(mirror.script)
        done = subprocess.run([sys.executable, "-B", script, "x"], cwd=project.parent, check=False)
        assert done.returncode == 0
        assert not (script.parent / ".git").exists()
        assert not (script.parent / "package" / "__pycache__").exists()
        assert mirror.recorded(mirror.script) == str(project / "train.py")
        assert mirror.recorded("/elsewhere.py") == "/elsewhere.py"
        top = Path(mirror.script.removesuffix(str(project / "train.py")))
    assert not top.exists()
    assert sorted(project.parent.rglob("*")) == before
    assert (project / "data.txt").read_text() == "data"


def test_a_recorded_file_that_is_gone_is_there(project: Path) -> None:
    texts = recorded(project)
    for file in texts:
        os.remove(file)  # noqa: PTH107
    with SourceMirror(PERMIT, str(project / "train.py"), texts) as mirror:
        assert Path(mirror.path(str(project / "package" / "part.py"))).read_text() == "NAME = 'recorded'\n"


def test_a_module_is_taken_from_its_place_wherever_the_path_leads(project: Path) -> None:
    texts = recorded(project)
    with SourceMirror(PERMIT, str(project / "train.py"), texts) as mirror:
        place = mirror.path(str(project / "package" / "part.py"))
        sys.path.insert(0, str(project))
        try:
            with LocalModuleFinder((), Instrumenter(), {"package.part": place}):
                import package.part as part  # type: ignore[import-not-found]

            assert part.NAME == "recorded"
            assert part.__file__ == place
        finally:
            sys.path.remove(str(project))
            for name in ("package", "package.part"):
                sys.modules.pop(name, None)


LONG = "n" * 400


@pytest.mark.drawn(9)
@pytest.mark.parametrize(
    "path",
    [
        "/../../../{victim}", "{victim}", "/tmp/../../{victim}", "relative/../../{victim}", "..",
        "/..", "/", "", "//", "/.",
        "/a//b.py", "/a/./b.py", f"/{LONG}/{LONG}.py", "/" + "deep/" * 900 + "x.py", "/nul\0byte.py", "/bytes\udcff.py",
        "/half\ud800.py", "/control\x1b[31m.py", "/florlog-source-0/0.py", "C:\\evil.py", "/dev/null/x.py",
        "/proc/self/mem",
    ],
)  # fmt: skip
def test_a_recorded_path_is_never_used_as_one(tmp_path: Path, path: str) -> None:
    victim = tmp_path / "victim.py"
    victim.write_text("the user's")
    path = path.replace("{victim}", str(victim).lstrip("/") if path.startswith("/") else str(victim))
    before = sorted(tmp_path.rglob("*"))
    texts = {path: "VALUE = 1\n", str(tmp_path / "script.py"): "SCRIPT = 1\n"}
    with SourceMirror(PERMIT, path, texts) as mirror:
        top = mirror.path(str(tmp_path / "script.py")).removesuffix(str(tmp_path / "script.py"))
        for recorded, text in texts.items():
            place = mirror.path(recorded)
            assert os.path.realpath(place).startswith(top + "/")
            assert Path(place).read_text() == text
            assert mirror.recorded(place) == recorded
        assert run_as_main(mirror.script).VALUE == 1
    assert victim.read_text() == "the user's"
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path(top).exists()


def test_recorded_paths_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    texts = {
        path: f"VALUE = {number}\n"
        for number, path in enumerate(
            ["/p/train.py", "/p/Train.py", "/P/train.py", "/p/train.py/inside.py", "/p", "/p/x/../train.py",
             "/p/x/y.py", "/p/x"]
        )
    }  # fmt: skip
    with SourceMirror(PERMIT, "/p/train.py", texts) as mirror:
        places = [mirror.path(path) for path in texts]
        assert [Path(place).read_text() for place in places] == list(texts.values())
        assert len({place.casefold() for place in places}) == len(places)


def test_a_link_of_the_user_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "kept.py").write_text("kept")
    (tmp_path / "project").symlink_to(tmp_path / "target")
    texts = {str(tmp_path / "project" / "kept.py"): "recorded\n", str(tmp_path / "train.py"): ""}
    with SourceMirror(PERMIT, str(tmp_path / "train.py"), texts) as mirror:
        assert Path(mirror.path(str(tmp_path / "project" / "kept.py"))).read_text() == "recorded\n"
    assert (tmp_path / "target" / "kept.py").read_text() == "kept"
