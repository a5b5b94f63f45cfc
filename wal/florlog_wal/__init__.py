"""The log manager: records, codec, write-ahead log and page store over LMDB."""
