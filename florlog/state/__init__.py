"""What state is, how it is found, captured and put back.

In come live objects: what was tracked, what a loop's variables hold, the iterable of a loop.  Out come trees of
plain values and tensors, and the same objects with a tree put back into them.  It does not know when state is
captured, or where it is stored.  **A new kind of tracked state goes here:** a class with a ``state_dict`` of
its own kind in `adapters`, a value type in `codecs`, a library's iterator in `cursors`.  `stateful` has the rule that
decides what gives its own state; `cpython` has all that depends on the interpreter's insides, and `reading_ahead` knows
the loaders of which the generator is the state.
"""
