"""Images: when to take one, how to copy the state without holding up the training, how to store it and read it
back.

In come trees of state from `florlog.state`.  Out come pages and page tables in a store, and trees again.  It
does not know what the trees mean, or which loop waits.
"""
