"""The mutable Python state of a program as one graph: every object once, with its identity and what it shares.

`capture` walks from the names of a program to everything that they reach and gives plain data; `restore` gives the
live objects that state back, in place, and makes those that are missing; `compare` finds the first difference between
two graphs.  ``specs/state.md`` has the rules: what is captured, what is cut off, and why.

A graph is a list of *nodes*, one for each object, in the order in which a breadth-first walk first meets them.  A
node is ``[kind, class, parts...]``.  Where a part names another object it is a *reference*:

    an atom        None, a bool, int, float, complex, str or bytes: the value itself
    ("@", n)       node number n
    ("=", name)    a constant of a library, found by ``module:qualified name``
    ("is", s)      an immutable value with a codec (a date, a dtype, a device), as `florlog.state.tree.flatten` has it
    ("own", name)  one of florlog's own objects, which is left as it is

Tensors and arrays are nodes that describe a view; the bytes are *regions* of memory, which several views may share.
"""
