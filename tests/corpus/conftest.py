from tests.end_to_end.conftest import nursery

__all__ = ["nursery"]
