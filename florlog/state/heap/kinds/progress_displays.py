"""Displays of ``rich.progress``: tools, but for the tasks that they show.

A program keeps the numbers of its tasks, and a display raises for a number that it does not know.  So an image has what
the tasks are, and a live display gets those that it lacks.  How far each has come decides nothing, and is not compared.
"""

from __future__ import annotations

import functools
from typing import Any

from florlog.state.heap.graph import Node
from florlog.state.heap.kinds.base import Build, Kind, Walk


class _Display(Kind):
    """``own``: number, description, total, completed and visibility of each task, and the next number."""

    name = "rich progress"
    described_as = "a tool"

    def take(self, walk: Walk, value: Any) -> Node:
        with value._lock:
            tasks = [
                (int(number), str(task.description), task.total, task.completed, bool(task.visible))
                for number, task in value._tasks.items()
            ]
            return Node(self.name, walk.class_name(value), (tasks, int(value._task_index)))

    def compared(self, node: Node) -> Any:
        return None

    def fill(self, build: Build, node: Node, held: Any) -> None:
        tasks, following = node.own
        with held._lock:
            live, held._tasks = held._tasks, {}
            for number, description, total, completed, visible in tasks:
                if number in live:
                    held._tasks[number] = live[number]
                    continue
                held._task_index = number
                held.add_task(description, total=total, completed=completed, visible=visible)
            held._task_index = following


DISPLAY = _Display()


@functools.cache
def display_kind(kind: Any) -> Kind | None:
    """The kind of the displays of ``rich.progress``, which is not imported for that."""
    names = (f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__)
    return DISPLAY if "rich.progress.Progress" in names else None
