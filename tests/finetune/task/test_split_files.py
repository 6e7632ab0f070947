"""The files and folders of a corpus are found by name, and described by their content."""

from __future__ import annotations

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.finetune.task import split_files


def test_folders_are_splits_where_there_is_no_file(tmp_path):
    for name in ("train", "dev", "test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.ann").write_text(name)
    (tmp_path / "dev.txt").write_text("a O")
    found = split_files.find_split_files(str(tmp_path), {}, ("txt",))
    assert {split: path.removeprefix(f"{tmp_path}/") for split, path in found.items()} == {
        "train": "train",
        "dev": "dev.txt",
        "test": "test",
    }


def test_an_empty_folder_is_no_split(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match="no training file"):
        split_files.find_split_files(str(tmp_path), {}, ("txt",))


def test_the_hash_of_a_folder_is_of_the_names_and_contents_of_its_files(tmp_path):
    def describe() -> dict:
        return split_files.describe_files({"train": str(tmp_path)})["train"]

    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "1.txt").write_text("ab")
    first = describe()
    assert first["bytes"] == 2
    (tmp_path / ".hidden").write_text("x")
    assert describe() == first
    (tmp_path / "text" / "1.txt").write_text("ba")
    changed = describe()["sha256"]
    (tmp_path / "text" / "1.txt").rename(tmp_path / "text" / "2.txt")
    assert len({first["sha256"], changed, describe()["sha256"]}) == 3
