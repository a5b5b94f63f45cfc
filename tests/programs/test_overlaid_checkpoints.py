"""What a replay saves by libraries that open files themselves lies in the scratch directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from florlog.following.sandbox import FileOverlay

torch = pytest.importorskip("torch")
tensors = pytest.importorskip("safetensors.torch")


def test_a_checkpoint_of_safetensors_is_read_as_the_replay_wrote_it_and_the_users_stays(
    tmp_path: Path,
) -> None:
    kept = tmp_path / "model.safetensors"
    tensors.save_file({"weight": torch.zeros(3)}, kept)
    recorded = kept.read_bytes()
    with FileOverlay():
        assert tensors.load_file(kept)["weight"].tolist() == [0.0, 0.0, 0.0]
        tensors.save_file({"weight": torch.ones(3)}, kept)
        (tmp_path / "new").mkdir()
        tensors.save_file({"weight": torch.ones(2)}, str(tmp_path / "new" / "model.safetensors"))
        assert tensors.load_file(kept)["weight"].tolist() == [1.0, 1.0, 1.0]
        assert tensors.load_file(tmp_path / "new" / "model.safetensors")["weight"].tolist() == [1.0, 1.0]
    assert kept.read_bytes() == recorded
    assert not (tmp_path / "new").exists()
