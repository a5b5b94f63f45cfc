"""An IPython shell in a process of its own: cells come on stdin as JSON, what became of each goes to stdout.

A cell is ``[text, id]``.  The answer has what each printed, what it said on stderr, and the name of what it raised.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from typing import Any

from IPython.core.interactiveshell import InteractiveShell


def main() -> None:
    """Run the cells."""
    shell = InteractiveShell.instance(colors="nocolor")
    answers: list[dict[str, Any]] = []
    for text, identity in json.load(sys.stdin):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            done = shell.run_cell(text, store_history=True, cell_id=identity)
        error = done.error_before_exec or done.error_in_exec
        raised = "" if error is None else type(error).__name__
        answers.append({"out": out.getvalue(), "err": err.getvalue(), "raised": raised})
    sys.__stdout__.write(json.dumps(answers))  # type: ignore[union-attr]


if __name__ == "__main__":
    main()
