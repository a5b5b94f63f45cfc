"""Which large libraries a command imports: each is a part of a second in which the user waits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import florlog
from tests.inspect.stores import train

pytestmark = pytest.mark.drawn_in_file(10)

LARGE = {
    "torch", "pandas", "numpy", "numpy.ma", "florlog_wal", "textual", "IPython", "matplotlib", "pyarrow", "duckdb",
    "mlflow", "safetensors",
}  # fmt: skip
LOG = {"numpy", "florlog_wal"}
"""What reading a log takes; conditions on iterations take masked arrays too."""

IMPORTED = {
    "--help": set(),
    "runs --help": LOG,
    "runs": LOG,
    "runs --format json": LOG,
    "inspect": LOG,
    "inspect --format json": LOG,
    "inspect --stats": LOG,
    "inspect tree": LOG,
    "inspect tree --format json": LOG,
    "inspect values": LOG,
    "inspect values --format json": LOG,
    "inspect values --format csv": LOG,
    "inspect images": LOG,
    "inspect images --format json": LOG,
    "inspect source": LOG,
    "inspect source --format json": LOG,
    "inspect plan": LOG,
    "inspect plan --format json": LOG,
    "export values -o FOLDER/values.csv": LOG | {"numpy.ma"},
    "export values -o FOLDER/values.jsonl": LOG | {"numpy.ma"},
    "export values -o FOLDER/values.parquet": LOG
    | {"numpy.ma", "pyarrow", "pandas"},  # pyarrow looks for the latter itself
    "verify": LOG,
    "gc --dry-run": LOG,
    "diff FIRST SECOND": LOG,
    "inspect values HALF": LOG | {"torch"},  # NumPy has no bfloat16
    "replay --help": LOG | {"torch"},
}
"""A command, and the libraries of `LARGE` that it imports.  It imports no others, and it needs these."""

PRINT_IMPORTED = f"""
import sys
from pathlib import Path
from florlog.__main__ import main
try:
    main()
finally:
    print(*sorted({LARGE!r} & sys.modules.keys()), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A store, and what stands for the words in capitals in the table."""
    folder = tmp_path_factory.mktemp("imports")
    store = folder / "store"
    with florlog.run("half", store=store) as half:
        for _ in half.loop("step", range(2)):
            half.log(weight=torch.ones(2, dtype=torch.bfloat16))
    first, second = train(store, lr=0.1), train(store)
    return {"FOLDER": str(folder), "STORE": str(store), "FIRST": first, "SECOND": second, "HALF": half.id}


def imported(code: str, *arguments: str) -> set[str]:
    """What a fresh interpreter says at last on stderr, as a set of words."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert "Error" not in done.stderr, done.stderr
    assert "florlog:" not in done.stderr
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("line", IMPORTED)
def test_a_command_imports_only_what_it_needs(line: str, words: dict[str, str]) -> None:
    command, *rest = [word.replace("FOLDER", words["FOLDER"]) for word in line.split()]
    rest = [words.get(word, word) for word in rest]
    store = [] if command == "--help" else ["--store", words["STORE"]]
    assert imported(PRINT_IMPORTED, command, *store, *rest) == IMPORTED[line]


def test_a_program_that_only_reads_does_not_import_torch(words: dict[str, str]) -> None:
    code = """
import sys
from pathlib import Path
import florlog
with florlog.open(sys.argv[1]) as log:
    values = list(log.run(sys.argv[2]).logged())
    assert any(value.name == "weight" and value.value.shape == (1, 3) for value in values)
    assert len(log.run().columns("loss")) and list(log.iterations()) and log.run().summary()
print(*{"torch", "pandas"} & sys.modules.keys(), "nothing", file=sys.stderr)
"""
    assert imported(code, words["STORE"], words["SECOND"]) == {"nothing"}


def test_the_collections_of_a_recorded_script_leave_out_what_the_command_imported(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import gc, torch\nprint(gc.get_freeze_count(), len(gc.get_objects()))\n")
    done = subprocess.run(
        [sys.executable, "-m", "florlog", "record", str(script)],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    frozen, collected = map(int, done.stdout.split())
    assert frozen > 10 * collected
