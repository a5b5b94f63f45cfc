"""What reading a program costs: a package of 5,000 lines, by CPU time of this thread.

    python benchmarks/analysis.py [--lines N]

The package is made from this repository's corpus of training scripts, which are copied under new names until there are
that many lines.  Each figure is the least of three runs; `again` is the same question asked once more in one process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from florlog.hindsight.requesting import program_of
from florlog.source.carry.changeset import loop_effects
from florlog.source.diff.source_diff import compare
from florlog.source.edit.loop_choice import choose
from florlog.source.reach.regions import ProgramAnalysis

SCRIPTS = Path(__file__).parents[1] / "tests" / "corpus" / "scripts"


def package(lines: int) -> dict[str, str]:
    """At least ``lines`` lines of training scripts, by file name."""
    texts = [path.read_text() for path in sorted(SCRIPTS.rglob("*.py"))]
    files: dict[str, str] = {}
    count = 0
    while count < lines:
        text = texts[len(files) % len(texts)]
        files[f"/package/part{len(files)}.py"] = text
        count += text.count("\n")
    return files


def seconds(work: Callable[[], object], times: int = 3) -> float:
    """CPU time of this thread in seconds, the least of ``times`` runs."""
    found = []
    for _ in range(times):
        begun = time.thread_time()
        work()
        found.append(time.thread_time() - begun)
    return min(found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=5000)
    files = package(parser.parse_args().lines)
    script = next(iter(files))
    total = sum(text.count("\n") for text in files.values())
    print(f"{len(files)} files, {total} lines")
    added = {file: text + "\nprint('one more')\n" for file, text in files.items()}
    rows = {
        "call graph and regions": lambda: ProgramAnalysis(files, script),
        "the same, again": lambda: program_of(tuple(files.items()), script),
        "what was added": lambda: [compare(files[f], added[f], filename=f) for f in files],
        "loops of the training": lambda: choose(files),
        "changesets of the loops": lambda: loop_effects(files),
    }
    program_of(tuple(files.items()), script)
    for name, work in rows.items():
        print(f"{name:28} {seconds(work) * 1e3:9.1f} ms")


if __name__ == "__main__":
    main()
