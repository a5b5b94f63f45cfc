"""A training of a framework's user, recorded hands-free: killed, resumed, and asked afterwards."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from florlog.bridges.manifests import MANIFESTS, LoopManifest
from tests.end_to_end.harness import Nursery

RECORD = "florlog", "record", "--no-audit"


def of_another_version() -> tuple[LoopManifest, ...]:
    """The manifests as if none of the installed frameworks were known."""
    return tuple(
        replace(manifest, modules=tuple(replace(module, known={"": "9.9.9"}) for module in manifest.modules))
        for manifest in MANIFESTS
    )


def left_in(directory: Path) -> tuple[Any, dict[str, bytes], dict[str, Any]]:
    """What a training has left in a directory: what it wrote of its own log, its weights bit for bit, and the rest."""
    import torch

    left = torch.load(directory / "end.pt")
    weights = {name: weight.numpy().tobytes() for name, weight in left.pop("weights").items()}
    return json.loads((directory / "end.json").read_text()), weights, left


@dataclass(frozen=True)
class Training:
    """A program in a directory, with ``plain`` as python left it and a ``store`` with a run that has all images."""

    nursery: Nursery
    program: str
    directory: Path
    ended: Callable[[Path], Any]
    """What a training has left in a directory, without times, comparable bit for bit."""

    @property
    def script(self) -> Path:
        """The program's file."""
        return self.directory / "train.py"

    def record(self) -> None:
        """Run the program with python, and record it."""
        self.script.write_text(self.program)
        self.nursery.run(self.directory / "unused", self.script, self.directory / "plain")
        record = (*RECORD, self.script, self.directory / "recorded")
        self.nursery.run(self.directory / "store", *record, dense=True)
        (self.directory / "said.txt").write_text(self.nursery.output.read_text())

    @property
    def said(self) -> list[str]:
        """florlog's lines of the recording."""
        lines = re.split(r"[\r\n]", (self.directory / "said.txt").read_text())
        return [line for line in lines if line.startswith("florlog: ")]

    def is_as_python_left_it(self, out: Path) -> bool:
        """Whether a training has left what it leaves without florlog."""
        return bool(self.ended(out) == self.ended(self.directory / "plain"))

    def kill_and_resume(
        self, place: Path, case: int, *, seconds: tuple[float, float], dense: tuple[float, float]
    ) -> Path:
        """Record it anew, kill it, and resume it; ``case`` draws when and with how many images.

        ``seconds``: within which it is killed, after its store exists; ``dense``: the same of a run with all images.
        """
        chance = random.Random(case)
        store, out = place / "store", place / "out"
        all_images = chance.random() < 0.5
        command = (*RECORD, self.script, out)
        killed, _ = self.nursery.run(
            store, *command, kill=chance.uniform(*(dense if all_images else seconds)), dense=all_images
        )
        if killed:
            self.nursery.run(store, "florlog", "resume", self.script, out, dense=all_images, code=None)
            if "florlog: no run in" in self.nursery.output.read_text():  # it was killed before the run began
                self.nursery.run(store, *command, dense=all_images)
        return out

    def notices_forgotten(self, place: Path, died: tuple[str, str], forgotten: str | None) -> bool:
        """Whether a run whose images have 0 for a number, killed and resumed, is not as python left it or says so.

        ``died``: a line of the program, and a condition before it under which the process is killed once.
        """
        script, store, out, kill = (place / name for name in ("train.py", "store", "out", "kill"))
        line, condition = died
        indent = line[: len(line) - len(line.lstrip())]
        end = f"{indent}if {condition} and os.path.exists({str(kill)!r}): os.kill(os.getpid(), 9)\n"
        assert line in self.program
        script.write_text(self.program.replace(line, end + line, 1))
        kill.touch()
        assert self.nursery.run(store, *RECORD, script, out, dense=True, forget=forgotten)[0]
        kill.unlink()
        self.nursery.run(store, "florlog", "resume", script, out, dense=True, forget=forgotten, code=None)
        differs = "the run differs" in self.nursery.output.read_text()
        return differs or not ((out / "end.pt").exists() and self.is_as_python_left_it(out))

    def ask(self, place: Path, added: tuple[str, str], where: str) -> tuple[Any, Any, list[str]]:
        """What replays answer, to one iteration and to all, and what a full run prints.

        ``added``: a line of the program, and what a statement after it prints.
        """
        store = shutil.copytree(self.directory / "store", place / "store")
        every = shutil.copytree(self.directory / "store", place / "every")
        line, printed = added
        assert line in self.program
        indent = line[: len(line) - len(line.lstrip())]
        try:
            self.script.write_text(
                self.program.replace(line, f'{line}\n{indent}print("asked", {printed})', 1)
            )
            self.nursery.run(place / "unused", self.script, place / "full")
            wanted = re.findall(r"asked (.*)", self.nursery.output.read_text())
            return self._asked(store, "--where", where), self._asked(every), wanted
        finally:
            self.script.write_text(self.program)

    def _asked(self, store: Path, *options: str) -> Any:
        self.nursery.run(store, "florlog", "replay", self.script, "--format", "json", *options)
        said = self.nursery.output.read_text()
        return json.loads(next(line for line in said.splitlines() if line.startswith("{")))


def rows(values: list[dict[str, Any]]) -> list[str]:
    """The values of each execution of the statement, as print shows them."""
    names = list(dict.fromkeys(value["name"] for value in values))
    columns = [[str(value["value"]) for value in values if value["name"] == name] for name in names]
    return [" ".join(row) for row in zip(*columns, strict=True)]
