"""What can go wrong with a store, as classes with fields.

Every message is one line: what is wrong, then what to do next.  A caller that only wants to know "is it
the log's fault" catches `WalError`.  Nothing here is raised for a torn tail: the first invalid tail frame is
the normal end of a log, not an error.
"""

# The names say what happened, as the standard library's StopIteration does.
# ruff: noqa: N818

from __future__ import annotations


class WalError(Exception):
    """Base of all errors of this layer."""


class NotAStore(WalError):
    """There is no store at the path."""

    def __init__(self, path: str, detail: str) -> None:
        self.path, self.detail = path, detail
        super().__init__(f"{path} is not a florlog store: {detail}")


class UnsupportedFormat(WalError):
    """The store was written in a format that this version does not know."""

    def __init__(self, found: str, supported: str) -> None:
        self.found, self.supported = found, supported
        super().__init__(
            f"the store has format {found}, this florlog reads {supported}: use the version that wrote it"
        )


class NoSuchRun(WalError, LookupError):
    """The store has no run of that name."""

    def __init__(self, path: str, run: str) -> None:
        self.path, self.run = path, run
        super().__init__(f"there is no run {run!a} in {path}: `florlog runs` lists them")


class RunExists(WalError):
    """A new run has the name of another one."""

    def __init__(self, path: str, run: str) -> None:
        self.path, self.run = path, run
        super().__init__(
            f"{path} has a run {run!a} already: give the new one another name, or remove that one"
        )


class NotPacked(WalError):
    """A file is no packed run, or not a whole and sound one."""

    def __init__(self, path: str, detail: str) -> None:
        self.path, self.detail = path, detail
        super().__init__(f"{path} is no sound packed run: {detail}; nothing was unpacked, get it anew")


class NetworkFilesystem(WalError):
    """LMDB's locks and memory map are not coherent over a network file system."""

    def __init__(self, path: str, kind: str) -> None:
        self.path, self.kind = path, kind
        super().__init__(
            f"{path} lies on a network file system ({kind}), where LMDB is not safe: "
            "use a local disk; if only one machine ever opens it, set FLORLOG_ALLOW_NETWORK=1 "
            "(or give allow_network=True)"
        )


class RunLocked(WalError):
    """Another process (or another RunLog of this one) writes to the run."""

    def __init__(self, path: str, pid: int, host: str, since: float) -> None:
        self.path, self.pid, self.host, self.since = path, pid, host, since
        super().__init__(f"{path} is in use by process {pid} on {host}: wait until that has ended")


class TooManyReaders(WalError):
    """All of LMDB's reader slots are taken by living processes."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(
            f"{path} has no reader slot left: end some of the processes that read it, then try again"
        )


class ReadOnlyStore(WalError):
    """A writing method was called on a store opened for reading."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f'{path} is open for reading only: open it with mode="w" to write')


class StoreClosed(WalError):
    """A method was called after close()."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"{path} was closed: open it again")


class Forked(WalError):
    """The store was opened by the parent of this process."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"{path} was opened before a fork: log in the parent, or start the child by spawn")


class LogStopped(WalError):
    """The log cannot be written any more; durable records stay readable."""

    def __init__(self, reason: str, durable_lsn: int) -> None:
        self.reason, self.durable_lsn = reason, durable_lsn
        super().__init__(
            f"the log stopped: {reason}; records up to LSN {durable_lsn} are durable: "
            "make room or repair the disk, then open the store again"
        )


class PagesFailed(WalError):
    """The pages of an image cannot be written; the log goes on, and so may the next image."""

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(
            f"pages cannot be written to {path} ({reason}): the log and earlier images are not harmed; make room, "
            "later images are tried again"
        )


class CorruptRecord(WalError):
    """The bytes at an LSN are not what was written."""

    def __init__(self, lsn: int, detail: str) -> None:
        self.lsn, self.detail = lsn, detail
        super().__init__(f"the record at LSN {lsn} is corrupt: {detail}; everything before it is readable")


class NoSuchRecord(WalError, LookupError):
    """The log does not reach an LSN, or no longer contains it."""

    def __init__(self, lsn: int, first: int, last: int) -> None:
        self.lsn, self.first, self.last = lsn, first, last
        super().__init__(f"there is no record at LSN {lsn}: the log holds {first} to {last}")


class CorruptPage(WalError):
    """The bytes stored under a digest do not have that digest."""

    def __init__(self, digest: bytes, detail: str) -> None:
        self.digest, self.detail = digest, detail
        super().__init__(f"the page {digest.hex()} is corrupt: {detail}; use an image that does not need it")


class MissingPage(WalError, LookupError):
    """No page has the digest."""

    def __init__(self, digest: bytes) -> None:
        self.digest = digest
        super().__init__(f"there is no page {digest.hex()}: it was never stored, or gc removed it")


class CorruptStore(WalError):
    """A file of the store is damaged as a whole: shorter than it says, or not a file of LMDB."""

    def __init__(self, path: str, detail: str) -> None:
        self.path, self.detail = path, detail
        super().__init__(f"{path} is damaged: {detail}; restore it from a copy")


class StoreFailed(WalError):
    """The operating system refused something (EIO, ENOSPC); committed records are not harmed."""

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path}: {reason}: check the disk, then try again")


class Unencodable(WalError, TypeError):
    """A value has a type that the log does not take."""

    def __init__(self, type_name: str, where: str) -> None:
        self.type_name, self.where = type_name, where
        at = f" at {where}" if where else ""
        super().__init__(f"a {type_name}{at} cannot be logged: convert it to plain values or an Array")


class CorruptValue(WalError, ValueError):
    """Bytes that are not the encoding of any value."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(f"not an encoded value: {detail}")
