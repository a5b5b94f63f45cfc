"""What a store contains: runs, values by column, states, differences between runs; text and pictures of them.

In comes a store.  Out come tables, frames, plots and lines of text.  Importing it does not import torch, and
what was logged is read without it.
"""
