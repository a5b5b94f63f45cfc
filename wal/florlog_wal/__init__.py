"""The log manager: records, codec, write-ahead log and page store over LMDB."""

from florlog_wal.columns import Batch, LoggedColumn
from florlog_wal.compact import CompactReport, compact
from florlog_wal.directory import LockHolder
from florlog_wal.errors import (
    CorruptPage,
    CorruptRecord,
    CorruptStore,
    CorruptValue,
    Forked,
    LogStopped,
    MissingPage,
    NetworkFilesystem,
    NoSuchRecord,
    NotAStore,
    PagesFailed,
    ReadOnlyStore,
    StoreClosed,
    StoreFailed,
    StoreLocked,
    TooManyReaders,
    Unencodable,
    UnsupportedFormat,
    WalError,
)  # fmt: skip
from florlog_wal.gc import GcReport, gc
from florlog_wal.lineage import Lineage
from florlog_wal.pages import PutResult
from florlog_wal.records import (
    RECORD_TYPES,
    Abort,
    Array,
    Begin,
    CheckpointBegin,
    CheckpointEnd,
    Commit,
    Entry,
    Failure,
    Frame,
    Hindsight,
    LoggedValues,
    LoopBegin,
    LoopEnd,
    Note,
    PageEntry,
    PageTable,
    Path,
    Record,
    RunBegin,
    RunEnd,
    Statement,
    Values,
)  # fmt: skip
from florlog_wal.sessions import SessionInfo
from florlog_wal.store import Store
from florlog_wal.tables import DIGEST_SIZE, PAGE_SIZE, decode_table, encode_table, page_digest
from florlog_wal.thinning import Thinned, thin
from florlog_wal.values import decode_value, encode_value
from florlog_wal.verify import Problem, VerifyReport, verify
from florlog_wal.writer import CommitFields

__all__ = [
    "DIGEST_SIZE", "PAGE_SIZE", "RECORD_TYPES", "Abort", "Array", "Batch", "Begin", "CheckpointBegin",
    "CheckpointEnd", "Commit", "CommitFields", "CompactReport", "CorruptPage", "CorruptRecord", "CorruptStore",
    "CorruptValue", "Entry", "Failure", "Forked", "Frame", "GcReport", "Hindsight", "Lineage", "LockHolder",
    "LogStopped", "LoggedColumn", "LoggedValues", "LoopBegin", "LoopEnd", "MissingPage",
    "NetworkFilesystem", "NoSuchRecord", "NotAStore", "Note", "PageEntry", "PageTable", "PagesFailed",
    "Path", "Problem", "PutResult", "ReadOnlyStore", "Record", "RunBegin", "RunEnd", "SessionInfo",
    "Statement", "Store", "StoreClosed", "StoreFailed", "StoreLocked", "Thinned", "TooManyReaders",
    "Unencodable",
    "UnsupportedFormat", "Values", "VerifyReport", "WalError", "compact", "decode_table", "decode_value",
    "encode_table", "encode_value", "gc", "page_digest", "thin", "verify",
]  # fmt: skip
