"""The signature of what was recorded on this machine by this user.

A key lies in the user's configuration directory: ``$XDG_CONFIG_HOME/florlog/key`` or ``~/.config/florlog/key``, 32
random bytes that nobody else may read, made by the first recording.  With it the first record of each session is
signed, and each source that is stored later.  So a run's stored source can be known from a stranger's, before it is
executed (`florlog.programs.permission`).

An image is *sealed*: of what it holds besides tensors there is a signature, as restoring it makes objects and decides
which functions the program's names are bound to.

The texts themselves are signed and not the digests of their pages: those are for finding damage, and somebody who
wants to can find two texts that have the same one.  Logged values and tensors are not signed.

Where there is no key, as in a home that cannot be written, nothing is signed, and recording goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

from florlog_wal import RunBegin, encode_value

SIGNATURE = "signature"
"""The key under which a session's environment, or a later source's note, has its signature."""
KEY_BYTES = 32
_SIGNATURE_BYTES = 32


def key_path() -> Path | None:
    """Where the user's key lies; None for a user without a home."""
    given = Path(os.environ.get("XDG_CONFIG_HOME") or "")
    try:
        return (given if given.is_absolute() else Path("~/.config").expanduser()) / "florlog" / "key"
    except RuntimeError:
        return None


def user_key(*, make: bool = False) -> bytes | None:
    """The user's key, made if there is none yet and ``make`` says so; None where there is none to be had.

    A file that is not the user's own, or that others may read, is no key.
    """
    path = key_path()
    if path is None:
        return None
    try:
        if make and not path.exists():
            _make(path)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(fd)
            own = (
                stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077
            )
            key = os.read(fd, KEY_BYTES + 1) if own else b""
        finally:
            os.close(fd)
    except OSError:
        return None
    return key if len(key) == KEY_BYTES else None


def _make(path: Path) -> None:
    """Write a new key; whoever comes second takes the first one's."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f"key.{os.getpid()}.{secrets.token_hex(4)}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(fd)
        with contextlib.suppress(FileExistsError):
            os.link(new, path)
    finally:
        new.unlink(missing_ok=True)


def signed(begin: RunBegin, texts: Sequence[bytes]) -> RunBegin:
    """A session's first record with its signature; ``texts`` are those of its sources."""
    key = user_key(make=True)
    if key is None:
        return begin
    signature = _of_begin(key, begin, texts)
    return replace(begin, environment={**begin.environment, SIGNATURE: signature})


def is_signed(key: bytes, begin: RunBegin, texts: Sequence[bytes]) -> bool:
    """Whether a session's first record and its sources are as they were signed with this key."""
    found = begin.environment.get(SIGNATURE)
    return isinstance(found, bytes) and hmac.compare_digest(found, _of_begin(key, begin, texts))


def later_signature(begin: RunBegin, note: str, path: str, text: bytes) -> bytes | None:
    """The signature of a source that is stored at the end of a session; None where there is no key."""
    key = user_key()
    return (
        None if key is None or SIGNATURE not in begin.environment else _of_later(key, begin, note, path, text)
    )


def is_later_signed(key: bytes, begin: RunBegin, note: str, path: str, text: bytes, found: object) -> bool:
    """Whether a later source is as it was signed with this key in this session."""
    return isinstance(found, bytes) and hmac.compare_digest(found, _of_later(key, begin, note, path, text))


def seal(hosts: Mapping[str, bytes]) -> bytes | None:
    """The signature of what an image holds besides tensors, by name; None where there is no key."""
    key = user_key()
    return None if key is None else _of_hosts(key, hosts)


def is_sealed(hosts: Mapping[str, bytes], found: object) -> bool:
    """Whether that is as it was when this user recorded it."""
    key = user_key()
    return key is not None and isinstance(found, bytes) and hmac.compare_digest(found, _of_hosts(key, hosts))


def _of_hosts(key: bytes, hosts: Mapping[str, bytes]) -> bytes:
    names = sorted(hosts)
    return _mac(key, b"florlog image", (encode_value(names), *(hosts[name] for name in names)))


def _of_begin(key: bytes, begin: RunBegin, texts: Sequence[bytes]) -> bytes:
    facts = {field.name: getattr(begin, field.name) for field in fields(begin)}
    facts["environment"] = {name: value for name, value in begin.environment.items() if name != SIGNATURE}
    facts["sources"] = [(path, module) for path, module, _ in begin.sources]
    return _mac(key, b"florlog session", (encode_value(facts), *texts))


def _of_later(key: bytes, begin: RunBegin, note: str, path: str, text: bytes) -> bytes:
    session = begin.environment.get(SIGNATURE)
    return _mac(key, b"florlog later", (encode_value([session, note, path]), text))


def _mac(key: bytes, purpose: bytes, parts: Sequence[bytes]) -> bytes:
    made = hashlib.blake2b(key=key, digest_size=_SIGNATURE_BYTES, person=purpose)
    for part in _with_lengths(parts):
        made.update(part)
    return made.digest()


def _with_lengths(parts: Sequence[bytes]) -> Iterator[bytes]:
    """The parts, each after its length, so that no two lists of parts are the same bytes."""
    for part in parts:
        yield len(part).to_bytes(8, "big")
        yield part
