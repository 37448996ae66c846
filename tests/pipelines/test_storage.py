"""What is written to disks."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import storage


def test_a_file_that_cannot_be_written_whole_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_text("former")

    def no_room(*_: str) -> None:
        raise OSError("no room")

    monkeypatch.setattr(storage, "rename", no_room)
    with pytest.raises(OSError, match="no room"):
        storage.write_bytes(str(path), b"new", temporary=str(tmp_path))
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text() == "former"


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.json").write_text("former")
    (tmp_path / "a.json").symlink_to("elsewhere/a.json")
    storage.write_bytes(str(tmp_path / "a.json"), b"new", temporary=str(tmp_path))
    assert (tmp_path / "a.json").is_symlink()
    assert (tmp_path / "elsewhere" / "a.json").read_text() == "new"


def test_a_folder_is_replaced_when_all_is_written_and_keeps_what_is_not(tmp_path: Path) -> None:
    place = tmp_path / "model"
    (place / "notes").mkdir(parents=True)
    (place / "notes" / "a").write_text("ours")
    (place / "weights").write_text("former")
    with pytest.raises(KeyboardInterrupt), storage.replaced(str(place)) as draft:
        (draft / "weights").write_text("half")
        raise KeyboardInterrupt
    assert (place / "weights").read_text() == "former"
    with storage.replaced(str(place)) as draft:
        (draft / "weights").write_text("new")
        assert (place / "weights").read_text() == "former"
    assert (place / "weights").read_text() == "new"
    assert (place / "notes" / "a").read_text() == "ours"
    assert [each.name for each in tmp_path.iterdir()] == ["model"]
