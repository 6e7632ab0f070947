from __future__ import annotations

import json
import pathlib
import shutil
import socket

import datasets
import pytest
from read_files import read_file

from electramed_jax.common.errors import UserError
from electramed_jax.data.readers import reader

ROWS = [{"id": str(n), "title": f"Title {n}", "abstract": f"Kinase {n} binds."} for n in range(10)]


@pytest.fixture
def saved(tmp_path) -> str:
    whole = datasets.Dataset.from_list(ROWS)
    splits = datasets.DatasetDict({"train": whole.select(range(8)), "test": whole.select([9, 8])})
    splits.save_to_disk(str(tmp_path / "saved"), num_shards={"train": 2, "test": 1})
    return str(tmp_path / "saved")


def read_all(name: str, **options: object) -> list[str]:
    return [document.text for shard in reader.find_inputs([name]) for document in read_file(shard, **options)[0]]


def test_a_folder_of_save_to_disk_is_read_shard_by_shard(saved):
    wanted = [f"{row['title']}\n{row['abstract']}" for row in ROWS]
    assert len(reader.find_inputs([saved])) == 2
    assert read_all(saved) == wanted[:8]
    assert read_all(f"hf:{saved}?split=test") == [wanted[9], wanted[8]]
    assert read_all(f"hf:{saved}/train") == wanted[:8]
    assert read_all(f"hf:{saved}?text=title") == [row["title"] for row in ROWS[:8]]
    assert sum(map(reader.input_bytes, reader.find_inputs([saved]))) > 0


def test_a_dataset_in_the_cache_is_read_without_a_network(tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    made = datasets.load_dataset("json", data_files=str(tmp_path / "train.jsonl"), cache_dir=str(cache))["train"]
    # The place of a dataset of the Hub: user___name/config/version/hash.
    place = cache / "nobody___invented" / "default" / "0.0.0" / "0123456789abcdef"
    place.mkdir(parents=True)
    source = pathlib.Path(made.cache_files[0]["filename"])
    shutil.copy(source, place / "invented-train.arrow")
    info = json.loads((source.parent / "dataset_info.json").read_text())
    info |= {"dataset_name": "invented", "config_name": "default", "version": {"version_str": "0.0.0"}}
    (place / "dataset_info.json").write_text(json.dumps(info))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(socket, "socket", None)
    assert read_all("hf:nobody/invented") == [f"{row['title']}\n{row['abstract']}" for row in ROWS]
    with pytest.raises(UserError, match=r"no split 'test' in the cache; it has train"):
        reader.find_inputs(["hf:nobody/invented?split=test"])


def test_errors_name_the_splits_and_what_is_missing(saved, tmp_path):
    with pytest.raises(UserError, match=r"no split 'dev'; it has train, test"):
        reader.find_inputs([f"hf:{saved}?split=dev"])
    with pytest.raises(UserError, match=r"no setting 'spilt'; wanted split, config"):
        reader.find_inputs([f"hf:{saved}?spilt=test"])
    with pytest.raises(UserError, match=r"not in the cache of datasets on this machine .*nothing is downloaded"):
        reader.find_inputs(["hf:nobody/nothing"])
    with pytest.raises(UserError, match=r"not a folder that datasets\.save_to_disk wrote"):
        reader.find_inputs([f"hf:{tmp_path}"])
