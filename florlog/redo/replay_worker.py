"""A whole replay in a process: ``python -m florlog.redo.replay_worker``.

Its order is a question as data (`florlog.redo.replaying`).  It answers ``["plan", view]``, then ``["progress", N]``,
and at last ``["done", run, answer]``.
"""

from __future__ import annotations

from pathlib import Path

from florlog.hindsight.plan_view import PlanView
from florlog.program.spawner import Order, serve
from florlog.program.stores import log_of, open_store, tree_of
from florlog.program.wire import Wire
from florlog.redo.answer import Progress
from florlog.redo.replaying import Question, answer_data, replay_here


def replay(order: Order, wire: Wire) -> None:
    """Answer the question of an order."""

    def announce(view: PlanView) -> Progress:
        wire.send("plan", view)
        return lambda redone: wire.send("progress", redone)

    question = Question(**order)
    with open_store(Path(question.store)) as store:
        log = log_of(store, question.run)
        replayed = replay_here(log, tree_of(log), question, announce)
    wire.send("done", replayed.run, answer_data(replayed.answer))


if __name__ == "__main__":
    serve(replay)
