"""Wrong uses of the public interface.  Each line names the errors that mypy reports for it."""

from __future__ import annotations

import florlog

florlog.run()  # expected: call-arg
florlog.run("digits", durability="sometimes")  # expected: arg-type
florlog.run("digits", epochs=3)  # expected: call-arg
print(florlog.losses)  # expected: attr-defined
florlog.open(3)  # expected: arg-type

with florlog.run("digits") as run:
    for epoch in run.loop("epoch", 3):  # expected: arg-type, var-annotated
        run.log("loss", epoch)  # expected: arg-type, call-arg
    for step in run.loop("step", range(3)):
        step.upper()  # expected: attr-defined
    run.iteration("extra", "first")  # expected: arg-type
    run.track(derived=[1])  # expected: arg-type

with florlog.open() as log:
    log.runs.values()  # expected: attr-defined
    log.run().state_at(at="middle", epoch=3)  # expected: arg-type
    log.run().state_at(epoch="last")  # expected: arg-type
    log.values(3)  # expected: arg-type
    log.values("loss").shape + "x"  # expected: operator

raise florlog.NoRunError(3)  # expected: arg-type
