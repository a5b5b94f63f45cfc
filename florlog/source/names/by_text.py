"""Builtins by which code reaches names and attributes that its text does not show."""

from __future__ import annotations

BINDING_BUILTINS = frozenset({"globals", "locals", "exec", "eval"})
"""May read and bind any name.  So may `vars`, if it is called without an argument."""
READING_BUILTINS = BINDING_BUILTINS | {"vars", "dir"}
"""May read any name."""
CHANGING_BUILTINS = BINDING_BUILTINS | {"vars", "setattr", "delattr", "__import__"}
"""A call of one may change anything."""
