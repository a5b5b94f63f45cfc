"""The checks on every Python that is promised: ``nox``, or ``nox -s tests-3.12 -- tests/wal``.

An interpreter that is not installed is skipped.  CI runs ``make test`` on the one that it has.
"""

from __future__ import annotations

import nox

PYTHONS = ["3.11", "3.12", "3.13"]

nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False


def install(session: nox.Session) -> None:
    """Set up what `make` sets up, of the pinned versions."""
    session.install("-c", "constraints.txt", "-e", ".[dev]")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The test suite; arguments go to pytest."""
    install(session)
    # One thread: two test processes with two threads each spin for the same two cores.
    session.run("python", "-m", "pytest", "-n", "2", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session(python=PYTHONS[0])
def lint(session: nox.Session) -> None:
    """ruff: rules and formatting; import-linter: which room imports which."""
    install(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--no-logo", "--no-cache")


@nox.session(python=PYTHONS)
def types(session: nox.Session) -> None:
    """mypy --strict."""
    install(session)
    session.run("mypy")
