"""Facts about the program and about where its runs are stored.

In come the running process and a store.  Out come the environment that decides whether numbers repeat, the
sources of the program, the cells of a notebook's session, and the runs of a store.  Every process that florlog starts
is started by the spawner here.  The room does not know what a state, an image or a question is, and it does not import
torch when it is imported.
"""
