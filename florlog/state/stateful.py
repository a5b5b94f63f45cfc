"""Which objects give and take their own state: the one rule, for whoever asks.

An object is *stateful* if it has the pair ``state_dict()`` and ``load_state_dict(state)``, or if it is a random
generator of Python, NumPy or torch, whose library has another way to get and set its state.  Tensors, arrays,
containers and plain values are no such objects: they are state.  A class is none either.

The pair is looked up in two ways, because a lookup on an object runs that object's ``__getattr__``:

    has_state_dict   on the object.  For what the user has handed over: a tracked object, the iterable of a loop, the
                     data set of a loader.  A wrapper that passes every lookup on to what it wraps is stateful here.
    is_stateful      on its class.  For what was only found in a variable: nothing of the user's runs by the question,
                     a proxy or a mock that answers to any name is not taken for stateful, and of a wrapper the
                     attributes are captured instead, its own as well as the object that it wraps.

Whether a *class* has the pair is `class_has_state_dict`.  All that is stateful has an adapter
(`florlog.state.adapters`), but an adapter may still refuse one object, such as a module with lazy parameters.
"""

from __future__ import annotations

from typing import Any

from florlog.state.random_generators import ADAPTERS

_RANDOM_GENERATORS = tuple(ADAPTERS)


def has_state_dict(value: Any) -> bool:
    """Whether an object that the user has handed over has the pair of methods; may run its ``__getattr__``."""
    return not isinstance(value, type) and _has_pair(value)


def class_has_state_dict(kind: type) -> bool:
    """Whether a class, or a base of it, defines the pair of methods."""
    return _has_pair(kind)


def is_stateful(value: Any) -> bool:
    """Whether an object that was found gives its own state, by its class alone."""
    return isinstance(value, _RANDOM_GENERATORS) or class_has_state_dict(type(value))


def _has_pair(held: Any) -> bool:
    return callable(getattr(held, "state_dict", None)) and callable(getattr(held, "load_state_dict", None))
