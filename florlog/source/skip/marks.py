"""What data-flow analysis notes of a value: where it comes from that matters for trust."""

from __future__ import annotations

from dataclasses import dataclass, replace

from florlog.source.names.outside import HASHES, Read

ORDER_FREE = {"all", "any", "bool", "frozenset", "isinstance", "len", "max", "min", "set", "sorted", "sum"}
"""Builtins whose result does not depend on the order of a set."""
SET_METHODS = {
    "add", "clear", "copy", "difference", "difference_update", "discard", "intersection", "intersection_update",
    "isdisjoint", "issubset", "issuperset", "remove", "symmetric_difference", "symmetric_difference_update", "union",
    "update",
}  # fmt: skip
"""Methods of sets for which their order does not matter."""
MUTATORS = {
    "add", "append", "appendleft", "extend", "insert", "put", "put_nowait", "record", "setdefault", "update", "write",
}  # fmt: skip
"""Methods that put their arguments into their object."""


TEXT_BUILTINS = {"ascii", "format", "repr", "str"}
TEXT_METHODS = {"asctime", "ctime", "format", "isoformat", "join", "strftime"}
"""What makes a text of its arguments, or of its object."""
CONTAINERS = {
    "dict",
    "enumerate",
    "filter",
    "iter",
    "list",
    "map",
    "next",
    "print",
    "reversed",
    "sorted",
    "tuple",
    "zip",
}
"""Builtins whose results contain what they were given."""
TEXT_LIBRARIES = {"json", "os", "pathlib", "posixpath", "re", "shlex", "shutil", "string", "textwrap"}
"""Libraries that make texts and paths of texts."""
NUMBERS_OF_TEXTS = {"count", "find", "index", "rfind", "rindex"}
"""Methods of texts that compute numbers."""


@dataclass(frozen=True, slots=True)
class Marks:
    """``read``: something from outside that a value depends on; ``item``: it depends on what a florlog loop received.

    ``named``: the same of a text that it is or contains, such as the name of a run.  ``unordered``: it is a set, or in
    the order of one.  ``given``: what the items depend on that it gives.
    """

    read: Read | None = None
    unordered: bool = False
    item: bool = False
    given: Read | None = None
    named: Read | None = None

    def __or__(self, other: Marks) -> Marks:
        if other is NONE or other == self:
            return self
        return Marks(
            self.read or other.read,
            self.unordered or other.unordered,
            self.item or other.item,
            self.given or other.given,
            self.named or other.named,
        )

    @property
    def outside(self) -> Read | None:
        """What it depends on from outside, itself or by a text."""
        return self.read or self.named

    def as_text(self) -> Marks:
        """Of a text that is made of it."""
        return self if self.read is None else replace(self, read=None, named=self.read)

    def from_text(self) -> Marks:
        """Of what is computed from it, where it may be a text."""
        return self if self.named is None else replace(self, read=self.outside, named=None)

    def without_text(self) -> Marks:
        """Of an object that only gets a name by it."""
        return self if self.named is None else replace(self, named=None)

    def ordered(self, name: str, file: str, line: int) -> Marks:
        """After a use that depends on the order."""
        if not self.unordered:
            return self
        return replace(self, read=self.read or Read(HASHES, name, file, line), unordered=False)

    def iterated(self) -> Marks:
        """Of its items."""
        return self if self.given is None else replace(self, read=self.read or self.given)

    def without_order(self) -> Marks:
        """After a use that does not depend on the order."""
        return replace(self, unordered=False) if self.unordered else self


NONE = Marks()
