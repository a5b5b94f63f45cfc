"""Stores to look at: a real training, and one full of what a terminal must not see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from florlog_wal import Commit, Failure, LoopBegin, Note, RunBegin, RunEnd, Statement, Store

import florlog

EVIL = "evil\x1b[31m\u202e\x07\n\ud800"


def train(store: Path, *, epochs: int = 3, lr: float = 0.01, **options: Any) -> str:
    """Record a small training with two loops; its run id."""
    torch.manual_seed(1)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    with florlog.run("looked-at", store=store, params={"lr": lr, "epochs": epochs}, **options) as run:
        run.track(model=model, optimizer=optimizer)
        for epoch in run.loop("epoch", range(epochs)):
            for _ in run.loop("step", range(4)):
                loss = model(torch.randn(8, 3)).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.log(loss=loss, lr=lr)
            run.log(weight=model.weight, note=f"epoch {epoch}")
        run.log(final=True)
    return run.id


def evil(store: Path) -> tuple[str, str]:
    """Two runs of names with escape sequences, a huge text, a huge number, deep nesting; their ids.

    The second is written past florlog's own checks, as by somebody else.
    """
    deep: Any = EVIL
    for _ in range(90):
        deep = [deep]
    with florlog.run(EVIL, store=store, params={EVIL: EVIL}) as run:
        for _ in run.loop("i", range(2)):
            run.log(
                **{EVIL: deep, "huge": "x\x1b" * 1_000_000, "number": 10**50_000, EVIL + "2": {EVIL: EVIL}}
            )
    with Store.open(store) as opened, opened.new_log("stranger") as log:
        begin = RunBegin("stranger", EVIL, "record", EVIL, (EVIL,), EVIL, {EVIL: deep}, {}, (), 0.0, 0, 1, 0)
        session = log.append(begin)
        log.append(Statement(1, "log", EVIL, EVIL, 1, b"", (EVIL,), (EVIL,)), session=session)
        loop = log.append(LoopBegin((), EVIL, 0, 1, "for", 1, 0, (), 0.0, {}), session=session)
        commit = Commit(loop, 0, 0, ((1, EVIL, EVIL),), 0.1, b"", b"", b"", False)
        log.append(commit, session=session)
        log.append(Note(EVIL, EVIL, {EVIL: EVIL}), session=session)
        log.append(RunEnd("failed", 0.1, Failure(EVIL, EVIL, (), ())), session=session)
    return run.id, "stranger"
