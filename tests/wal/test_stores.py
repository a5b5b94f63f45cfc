"""Stores that lie in the repository: those of the present format stay readable, those of an earlier one are refused."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from florlog_wal import RunLog, UnsupportedFormat, page_digest, verify

from tests.wal import workload

STORES = sorted((Path(__file__).parent / "stores").glob("*.tar.xz"))


@pytest.mark.parametrize("archive", STORES, ids=lambda archive: archive.name)
def test_a_store_of_this_version_reads_and_goes_on_and_of_an_earlier_one_is_refused(
    archive: Path, tmp_path: Path
) -> None:
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    if archive.name != "format-4.tar.xz":
        with pytest.raises(UnsupportedFormat, match=r"format [123]"):
            RunLog.open(tmp_path / "store")
        return
    expected = [step.record for step in workload.script(3)]
    with RunLog.open(tmp_path / "store") as store:
        assert [entry.record for entry in store.scan()] == expected
        for step in workload.script(3):
            for page in step.pages:
                assert store.get_page(page_digest(page)) == page
    assert verify(tmp_path / "store").ok
    with RunLog.open(tmp_path / "store", mode="w") as store:
        assert store.append(expected[0]) == len(expected) + 1
    assert verify(tmp_path / "store").ok
