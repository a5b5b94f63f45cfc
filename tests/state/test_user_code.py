"""Which modules belong to the program."""

from __future__ import annotations

import sys

import torch

from florlog.state.user_code import is_user_file


def test_modules_of_libraries_are_not_the_program_s_wherever_they_say_that_they_lie() -> None:
    assert torch.ops.__file__ == "_ops.py"
    files = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
    users = {name for name, file in files.items() if file and is_user_file(file)}
    assert "tests" in {name.partition(".")[0] for name in users}
    assert not [name for name in users if name.partition(".")[0] in ("torch", "numpy", "sklearn", "pytest")]
