"""What is known about names of Python and of libraries without running them.

Each list only makes answers more precise: a name that is missing from a PLAIN or QUIET list is treated as code that may
run anything.
"""

from __future__ import annotations

CONSTRUCTORS = {
    "__init__", "__new__", "__post_init__",
}  # fmt: skip
ITERATION = {
    "__aiter__", "__anext__", "__contains__", "__delitem__", "__getitem__", "__getitems__",
    "__iter__", "__len__", "__length_hint__", "__missing__", "__next__", "__reversed__",
    "__setitem__",
}  # fmt: skip
WITH = {"__enter__", "__exit__", "__aenter__", "__aexit__"}
ATTRIBUTES = {
    "__getattr__",
    "__getattribute__",
    "__setattr__",
    "__delattr__",
    "__get__",
    "__set__",
    "__delete__",
}
PLAIN_BUILTINS = {
    "abs", "bool", "callable", "chr", "delattr", "divmod", "float", "hasattr", "hash", "id",
    "input", "int", "isinstance", "issubclass", "len", "object", "open", "ord", "pow", "print",
    "range", "repr", "round", "slice", "str", "super", "type",
}  # fmt: skip
PLAIN_LIBRARIES = {"argparse", "datetime", "json", "logging", "math", "os", "pathlib", "re", "sys", "time"}
# Methods of tensors, modules and containers that run no code of the user, except an override of the same name.
PLAIN_METHODS = {
    "__init__", "append", "argmax", "astype", "clear", "clone", "copy", "cpu", "cuda", "detach",
    "dim", "double", "endswith", "eval", "float", "format", "get", "half", "int", "item", "items",
    "keys", "log", "long", "lower", "mean", "mul", "norm", "numel", "numpy", "parameters", "pop",
    "requires_grad_", "reshape", "size", "split", "square", "squeeze", "startswith", "std", "strip",
    "tolist", "train", "unsqueeze", "begin", "named", "passes", "said", "see", "upper", "values", "view", "zero_grad",
}  # fmt: skip
QUIET_DECORATORS = {
    "abstractmethod", "autocast", "cache", "cached_property", "classmethod", "compile", "dataclass",
    "deleter", "enable_grad", "getter", "inference_mode", "lru_cache", "no_grad", "override",
    "property", "setter", "staticmethod", "total_ordering", "wraps",
}  # fmt: skip
PROPERTIES = {
    "cached_property", "deleter", "getter", "property", "setter",
}  # fmt: skip
