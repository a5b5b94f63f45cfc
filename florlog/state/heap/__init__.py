"""The mutable Python state of a program as one graph: every object once, with its identity and what it shares.

`capture` walks from the names of a program to everything that they reach and gives plain data; `restore` gives the
live objects that state back, in place, and makes those that are missing; `compare` finds the first difference between
two graphs.  ``specs/state.md`` has the rules: what is captured, what is cut off, and why.

    graph       nodes, references, and the way to a node
    rules       what an object is: an atom, a constant, immutable, a tool, state
    names       constants and code by their names
    kinds/      one class for each kind of node: how it is taken, matched, made and filled
    capture     the walk                          memory      the regions that tensors and arrays view
    matching    nodes paired with live objects    anchors     the live memory of each region
    building    objects made and filled           restore     all of that in order
    compare     the first difference              image       a graph as an image keeps it
"""
