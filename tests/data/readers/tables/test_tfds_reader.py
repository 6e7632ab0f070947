from __future__ import annotations

import glob
import pathlib
import shutil
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds

from electramed_jax.common.errors import UserError
from electramed_jax.data.corpus import corpus_dir
from electramed_jax.data.corpus.build import prepare
from electramed_jax.data.corpus.filtering import FilterConfig
from electramed_jax.data.readers import reader
from electramed_jax.data.readers.document import Document

PAPERS = [
    {
        "article": f"Kinase {number} binds its receptor in naïve mice.\nIt does so twice.",
        "abstract": f"Of kinase {number} & receptors.",
        "heading": f"Paper {number}",
        "pmid": 90_000_000 + number,
        "authors": ["A. One", f"B. {number}"],
    }
    for number in range(40)
]


class InventedPapers(tfds.core.GeneratorBasedBuilder):
    """A dataset for TFDS to write: two splits, the first with several shards."""

    VERSION = tfds.core.Version("1.2.0")
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name="all"), tfds.core.BuilderConfig(name="some")]

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        features = {
            "article": text,
            "abstract": text,
            "heading": text,
            "pmid": np.int64,
            "authors": tfds.features.Sequence(text),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {"train": self._generate_examples(PAPERS[:30]), "validation": self._generate_examples(PAPERS[30:])}

    def _generate_examples(self, papers):
        yield from ((paper["pmid"], paper) for paper in papers)


@pytest.fixture(scope="module", params=["array_record", "tfrecord"])
def data_dir(request, tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("tfds"))
    builder = InventedPapers(data_dir=folder, config="all", file_format=request.param)
    config = tfds.download.DownloadConfig(try_download_gcs=False, num_shards=3)
    builder.download_and_prepare(download_config=config)
    return folder


def texts_of(paper: dict, *fields: str) -> str:
    return "\n".join("\n".join(paper[field]) if field == "authors" else paper[field] for field in fields)


def prepare_and_read(tmp_path, name: str, workers: int = 1) -> list[Document]:
    prepare([name], str(tmp_path / "out"), FilterConfig(validation=0, test=0), workers=workers)
    parts = glob.glob(str(tmp_path / "out" / "train" / "*"))
    return [document for part in sorted(parts) for document in corpus_dir.read_part(part)]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_prepared_dataset_is_read_shard_by_shard(data_dir, tmp_path, workers):
    name = f"tfds:invented_papers/all:1.2.0?text=abstract,article&title=heading&data_dir={data_dir}"
    found = prepare_and_read(tmp_path, name, workers)
    assert len(glob.glob(str(tmp_path / "out" / "train" / "*"))) == 3
    wanted = {paper["pmid"]: texts_of(paper, "heading", "abstract", "article") for paper in PAPERS[:30]}
    assert {document.pmid: document.text for document in found} == wanted
    assert {document.source for document in found} == {"invented_papers/all/1.2.0"}
    assert found[0].sections[0] == (None, found[0].text.split("\n")[1])


def test_the_documents_and_their_order_are_those_that_tfds_reads(data_dir, tmp_path):
    found = prepare_and_read(tmp_path, f"tfds:invented_papers/all?text=article&data_dir={data_dir}")
    builder = tfds.builder_from_directory(f"{data_dir}/invented_papers/all/1.2.0")
    if builder.info.file_format.value == "tfrecord":
        examples = tfds.as_numpy(builder.as_dataset(read_config=tfds.ReadConfig(interleave_cycle_length=1))["train"])
    else:
        examples = builder.as_data_source("train")
    assert [document.text for document in found] == [example["article"].decode() for example in examples]


def test_a_slice_of_a_split_and_a_feature_with_a_list_of_strings_are_read(data_dir):
    (first, second) = reader.find_inputs(
        [f"tfds:invented_papers/all?split=train[5:15]&text=authors&data_dir={data_dir}"]
    )
    whole = reader.find_inputs([f"tfds:{data_dir}/invented_papers/all/1.2.0?text=authors"])
    rows = [document.text for shard in whole for document in reader.read_documents(shard, {})]
    assert [document.text for shard in (first, second) for document in reader.read_documents(shard, {})] == rows[5:15]
    assert sorted(rows) == sorted(texts_of(paper, "authors") for paper in PAPERS[:30])


def test_a_slice_in_percent_is_read(data_dir):
    found = reader.find_inputs([f"tfds:invented_papers/all?split=train[:10%]&text=article&data_dir={data_dir}"])
    assert len([document for shard in found for document in reader.read_documents(shard, {})]) == 3


def test_datasets_and_files_can_be_mixed(data_dir, tmp_path):
    (tmp_path / "a.txt").write_text("A plain text of invented words, on one line.")
    inputs = [str(tmp_path / "a.txt"), f"tfds:invented_papers/all?split=validation&text=article&data_dir={data_dir}"]
    info = prepare(inputs, str(tmp_path / "out"), workers=1)
    assert sum(split["documents"] for split in info["splits"].values()) == 11


def test_a_dataset_that_is_not_prepared_is_not_downloaded_and_the_error_names_the_command(tmp_path):
    with pytest.raises(UserError, match=r"nothing is downloaded: run tfds build scientific_papers/pubmed --data"):
        reader.find_inputs([f"tfds:scientific_papers/pubmed?text=article&data_dir={tmp_path}"])
    with pytest.raises(UserError, match="is not a dataset that TFDS prepared"):
        reader.find_inputs([f"tfds:{tmp_path}"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("", "no feature 'text'; it has abstract, article, authors, heading, pmid"),
        ("?text=article&title=name", "no feature 'name'"),
        ("?text=article&split=dev", "no split 'dev'; it has train, validation"),
        ("?text=article&field=x", "no setting 'field'; wanted split, text"),
        ("?article", "no setting 'article'"),
        ("?text=", "no value for 'text'"),
        ("?text=article&skip=3", "no setting 'skip'"),
    ],
)
def test_an_error_in_the_name_lists_the_valid_values(data_dir, settings, message):
    with pytest.raises(UserError, match=message):
        reader.find_inputs([f"tfds:{data_dir}/invented_papers/all/1.2.0{settings}"])


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[:80] + b"x" + data[81:]])
def test_a_damaged_shard_is_a_user_error(data_dir, tmp_path, damage):
    shutil.copytree(f"{data_dir}/invented_papers/all/1.2.0", tmp_path / "copy")
    (shard, *_) = reader.find_inputs([f"tfds:{tmp_path / 'copy'}?text=article"])
    path = pathlib.Path(shard.removeprefix("tfds:").partition("?")[0])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match="damaged|cut short"):
        list(reader.read_documents(shard, {}))


@pytest.mark.slow
def test_tensorflow_is_not_needed(data_dir):
    code = (
        "import sys\nfrom electramed_jax.data.readers import reader\n"
        f"shards = reader.find_inputs(['tfds:{data_dir}/invented_papers/all/1.2.0?text=article'])\n"
        "print(sum(1 for shard in shards for _ in reader.read_documents(shard, {})), 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout == "30 False\n"
