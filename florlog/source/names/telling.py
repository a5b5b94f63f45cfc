"""Calls that *tell* somebody a value: ``print``, loggers, progress bars, and the trackers of other libraries.

This is the one table of them.  A call is recognised by the name of what is called and by the form of its arguments.
Where a name such as ``log`` may mean anything, the object decides: what an import, or a call of something imported,
has bound it to (``run = wandb.init()``), or what it is usually called (``wandb``, ``trainer``).

Recognising a call changes nothing about it: the values it is given are recorded, and it runs.  Only a replay leaves
out calls, and it decides that by the object that it meets (`is_tracker`): a function of the program itself is code,
whatever it is called, and is executed.

Not recognised: tables, images and histograms, and a tracker's ``log(metrics)`` where neither the object nor the form
of its argument says what it is.
"""

from __future__ import annotations

import ast
import enum
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

from florlog.source.names.origins import root_module
from florlog.source.names.outside import dotted
from florlog.source.names.scopes import Scope, Scopes

Place: TypeAlias = int | str
"""Where an argument stands: its index, or its keyword."""

TRACKERS = (
    "accelerate", "aim", "clearml", "comet_ml", "dvclive", "lightning.fabric", "lightning_fabric", "mlflow", "neptune",
    "swanlab", "trackio", "wandb",
)  # fmt: skip
"""Libraries whose telling calls do nothing for the training: a replay leaves them out."""
TOLD_BY_PROGRAM = (
    "lightning", "pytorch_lightning", "tensorboard", "tensorboardX", "torch.utils.tensorboard", "transformers",
)  # fmt: skip
"""Libraries that keep what they are told: training may stop early by it, and images contain a writer's files.  A
replay leaves out added calls alone; what a writer writes goes where all files of a replay go."""
SHOWERS = ("logging", "loguru", "rich", "structlog")
"""Libraries that show people what they are told."""

LOGGER_METHODS = {
    "critical", "debug", "error", "exception", "fatal", "info", "log", "success", "trace", "warn", "warning",
}  # fmt: skip
_PROGRESS_BAR_METHODS = {"set_postfix", "set_postfix_str", "set_description", "set_description_str"}
_LOGGER = re.compile(r"(^|[._])log(ger|ging)?s?$", re.IGNORECASE)
_CONSOLE = re.compile(r"(^|[._])console$", re.IGNORECASE)
_TELLING_OBJECT = re.compile(
    r"(^|[._])(wandb|mlflow|trackio|swanlab|run|tracker|trainer|accelerator|fabric)$", re.IGNORECASE
)


SESSIONS = ("wandb.init", "mlflow.set_tracking_uri")
"""What decides where a tracker writes: a replay calls it in another way (`florlog.bridges.other_trackers`)."""


class Form(enum.Enum):
    """What the arguments of a telling call are."""

    WORDS = "texts and values, as of print"
    PAIR = "a name and a value"
    MAPPING = "a mapping of names to values"
    GROUP = "a name, and a mapping of names below it to values"


@dataclass(frozen=True, slots=True)
class Telling:
    """How a call tells values.  ``name``, ``value``: where they stand; a mapping stands at ``value``.

    ``keywords``: whether its other keywords are values, too.  ``logger``: whether the first argument may be a level or
    a text with places for the values after it.
    """

    form: Form
    name: Place | None = None
    value: Place | None = None
    keywords: bool = False
    logger: bool = False


@dataclass(frozen=True, slots=True)
class _Signature:
    """The form of a method's arguments; a name and a value each with the keywords that may stand for it."""

    form: Form
    name: tuple[Place, ...] = ()
    value: tuple[Place, ...] = ()

    def of(self, call: ast.Call) -> Telling | None:
        """How a call tells; None if its arguments do not have this form."""
        name = next((place for place in self.name if argument(call, place) is not None), None)
        value = next((place for place in self.value if argument(call, place) is not None), None)
        if value is None or (self.name and name is None):
            return None
        if any(isinstance(given, ast.Starred) for given in call.args):
            return None
        return Telling(self.form, name, value)


_PAIR = _Signature(Form.PAIR, (0, "key", "name"), (1, "value"))
_MAPPING = _Signature(
    Form.MAPPING, (), (0, "data", "metrics", "params", "dictionary", "dic", "logs", "values")
)
_METHODS = {
    "add_scalar": _Signature(Form.PAIR, (0, "tag"), (1, "scalar_value")),
    "add_scalars": _Signature(Form.GROUP, (0, "main_tag"), (1, "tag_scalar_dict")),
    "log_dict": _MAPPING,
    "log_metric": _PAIR,
    "log_metrics": _MAPPING,
    "log_param": _PAIR,
    "log_params": _MAPPING,
    "track": _Signature(Form.PAIR, ("name",), (0, "value")),
}
"""Methods that tell, whatever object they are called on."""
_POSTFIX = _Signature(Form.MAPPING, (), (0, "ordered_dict"))


def argument(call: ast.Call, place: Place) -> ast.expr | None:
    """The argument at a place; None if there is none."""
    if isinstance(place, int):
        return call.args[place] if place < len(call.args) else None
    return next((keyword.value for keyword in call.keywords if keyword.arg == place), None)


def is_tracker(names: Iterable[str], *, added: bool) -> bool:
    """Whether dotted names of what is called belong to a library whose telling calls a replay leaves out.

    The first name that belongs to one decides: a class of Lightning's has bases of ``lightning.fabric``.
    ``added``: the call is in code that was added afterwards.
    """
    for name in names:
        known = (*TRACKERS, *TOLD_BY_PROGRAM)
        libraries = [library for library in known if name == library or name.startswith(f"{library}.")]
        if libraries:
            return added or max(libraries, key=len) in TRACKERS
    return False


def only_tells(name: str) -> bool:
    """Whether what a library offers under a dotted name, if it is told values, only passes them on."""
    return name.partition(".")[0] in SHOWERS or is_tracker([name], added=True)


class Tellings:
    """The telling calls of one module, as its text has them."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree

    @cached_property
    def _scopes(self) -> Scopes:
        return Scopes(self._tree)

    @cached_property
    def _attributes(self) -> dict[str, list[ast.expr]]:
        """The values that are assigned to attributes of a name, whatever the object."""
        found: dict[str, list[ast.expr]] = {}
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Attribute):
                        found.setdefault(target.attr, []).append(node.value)
        return found

    def calls(self) -> Iterator[ast.Call]:
        """All telling calls."""
        return (node for node in ast.walk(self._tree) if isinstance(node, ast.Call) and self.of(node))

    def of(self, call: ast.Call) -> Telling | None:
        """How a call tells values; None if it does not."""
        return telling(call, self)

    @cached_property
    def _imported(self) -> set[str]:
        """The names under which this module imports something of a library that is told values."""
        return {
            alias.asname or alias.name
            for node in ast.walk(self._tree)
            if isinstance(node, ast.ImportFrom)
            and ((node.module or "") in SHOWERS or is_tracker([node.module or ""], added=True))
            for alias in node.names
        }

    def imports(self, name: str) -> bool:
        """Whether the module imports something of a library that is told values under a name."""
        return name in self._imported

    def opens_session(self, call: ast.Call) -> bool:
        """Whether a call decides where a tracker writes."""
        text = ast.unparse(call.func) if isinstance(call.func, (ast.Name, ast.Attribute)) else ""
        last = text.rpartition(".")[2]
        if not any(name.endswith(f".{last}") for name in SESSIONS):
            return False
        return text in SESSIONS or bool(self.libraries(call.func) & set(SESSIONS))

    def libraries(self, node: ast.expr) -> frozenset[str]:
        """The dotted names of the libraries' code that made an object, or that it is; empty if that is unknown."""
        scope = self._scopes.of.get(node)
        return frozenset() if scope is None else frozenset(self._made_by(node, scope, frozenset()))

    def _made_by(self, node: ast.expr, scope: Scope, seen: frozenset[object]) -> Iterator[str]:
        for origin in self._scopes.origins(node, scope):
            if root_module(origin):
                yield dotted(origin, "")
        match node:
            case ast.Call(func=made) | ast.Await(value=made) | ast.Subscript(value=made):
                yield from self._made_by(made, scope, seen)
            case ast.Attribute(value=value, attr=name):
                yield from self._made_by(value, scope, seen)
                if name not in seen:
                    for given in self._attributes.get(name, ()):
                        yield from self._made_by(given, self._scopes.of.get(given, scope), seen | {name})
            case ast.Name(id=name):
                holder = scope.holder(name)
                if holder is None or (holder, name) in seen:
                    return
                for binding in holder.bound[name]:
                    if isinstance(binding, ast.expr):
                        yield from self._made_by(
                            binding, self._scopes.of.get(binding, holder), seen | {(holder, name)}
                        )


def telling(call: ast.Call, module: Tellings | None = None) -> Telling | None:
    """How a call tells values; None if it does not.  Without the ``module`` that it is in, its form alone decides."""
    if isinstance(call.func, ast.Name):
        return _function(call, call.func, module)
    if not isinstance(call.func, ast.Attribute):
        return None
    name, owner = call.func.attr, call.func.value
    if name in _PROGRESS_BAR_METHODS:
        mapping = _POSTFIX.of(call) if name == "set_postfix" else None
        return replace(mapping or Telling(Form.WORDS), keywords=True)
    if (signature := _METHODS.get(name)) is not None:
        return signature.of(call)
    text = ast.unparse(owner) if isinstance(owner, (ast.Name, ast.Attribute)) else ""
    if name == "write":
        return Telling(Form.WORDS) if text.rpartition(".")[2] == "tqdm" else None
    if name == "print":
        return Telling(Form.WORDS)
    if name == "append" and isinstance(owner, ast.Subscript):
        return _series(call, owner, module)
    if name == "log" and (told := _log(call, text, module)) is not None:
        return told
    if name in LOGGER_METHODS and _shows(name, owner, text, module):
        return Telling(Form.WORDS, keywords=True, logger=True)
    return None


def _function(call: ast.Call, function: ast.Name, module: Tellings | None) -> Telling | None:
    """How a call of a bare name tells: ``print``, or what was imported under this name."""
    if function.id == "print":
        return Telling(Form.WORDS)
    if module is None or not module.imports(function.id):
        return None
    for made in module.libraries(function):
        library, _, name = made.rpartition(".")
        if made == "rich.print":
            return Telling(Form.WORDS)
        if is_tracker([library], added=True):
            if (signature := _METHODS.get(name)) is not None:
                return signature.of(call)
            if name == "log":
                return _MAPPING.of(call)
    return None


def _log(call: ast.Call, text: str, module: Tellings | None) -> Telling | None:
    """How ``X.log(...)`` tells if it tells a name with a value, or a mapping."""
    first = call.args[0] if call.args else argument(call, "data")
    if first is None:
        return None
    if isinstance(first, ast.Dict):
        return _MAPPING.of(call)
    named = isinstance(first, ast.JoinedStr) or (
        isinstance(first, ast.Constant) and isinstance(first.value, str)
    )
    if _LOGGER.search(text) or _CONSOLE.search(text):
        return None  # texts
    if named:
        return _PAIR.of(call)
    assert isinstance(call.func, ast.Attribute)
    known = module is not None and is_tracker(module.libraries(call.func.value), added=True)
    return _MAPPING.of(call) if known or _TELLING_OBJECT.search(text) else None


def _series(call: ast.Call, owner: ast.Subscript, module: Tellings | None) -> Telling | None:
    """How ``run["loss"].append(value)`` of neptune tells: by its object alone, as lists are appended to as well."""
    if module is None or not is_tracker(module.libraries(owner.value), added=True):
        return None
    return Telling(Form.WORDS) if len(call.args) == 1 else None


def _shows(method: str, owner: ast.expr, text: str, module: Tellings | None) -> bool:
    """Whether an object shows people what its logging methods are given."""
    if _LOGGER.search(text):
        return True
    if method == "log" and _CONSOLE.search(text):
        return True
    made = module.libraries(owner) if module is not None else frozenset()
    return any(name.partition(".")[0] in SHOWERS for name in made)
