"""Folders are uploaded to a local imitation of the Hub; refusals are one line without the token."""

from __future__ import annotations

import pathlib

import hub_server
import pytest
from hub_server import TOKEN

from electramed_jax.common.errors import UserError
from electramed_jax.hf import push_to_hub


@pytest.fixture
def hub(monkeypatch):
    with hub_server.running(monkeypatch) as hub:
        yield hub


@pytest.fixture
def folder(tmp_path) -> str:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights" * 100)
    return str(tmp_path)


def test_a_folder_is_uploaded_completely_to_a_repository_named_after_its_network(hub, folder, capsys):
    wanted = push_to_hub.name_repositories("me/electramed", {"discriminator": folder})
    commits = push_to_hub.push_folders(wanted, private=True, message="Step 3")
    assert commits["me/electramed-discriminator"].startswith(f"{hub.address}/me/electramed-discriminator/commit/")
    assert hub.files == {
        "me/electramed-discriminator/config.json": b"{}",
        "me/electramed-discriminator/model.safetensors": b"weights" * 100,
    }
    assert hub.private == {"me/electramed-discriminator": True}
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert TOKEN not in "".join(capsys.readouterr())


def test_the_uploaded_commit_is_tagged_and_a_tag_that_exists_is_refused_before_the_upload(hub, folder):
    wanted = {"me/electramed": folder}
    commit = push_to_hub.push_folders(wanted, private=False, message="Step 3", tag="v1.0")["me/electramed"]
    assert hub.tags == {"me/electramed@v1.0": commit.rpartition("/")[2]}
    uploaded = dict(hub.files)
    pathlib.Path(folder, "config.json").write_text("changed")
    with pytest.raises(UserError, match="the tag 'v1.0' already; choose another --tag"):
        push_to_hub.push_folders(wanted, private=False, message="Step 4", tag="v1.0")
    assert hub.files == uploaded
    push_to_hub.push_folders({**wanted, "me/other": folder}, private=False, message="Step 4", tag="v1.1")
    assert set(hub.tags) == {"me/electramed@v1.0", "me/electramed@v1.1", "me/other@v1.1"}


@pytest.mark.slow
@pytest.mark.parametrize(("status", "message"), [(401, "hf auth login"), (403, "hf auth login"), (404, "HTTP 404")])
def test_a_refusal_is_one_line_without_the_token(hub, folder, status, message):
    hub.refusal_status = status
    with pytest.raises(UserError, match=message) as error:
        push_to_hub.push_folders({"me/electramed-discriminator": folder}, private=False, message="m")
    assert TOKEN not in str(error.value) and "\n" not in str(error.value)


def test_an_unreachable_hub_is_reported_in_one_line(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="cannot be reached"):
        push_to_hub.push_folders({"me/electramed-discriminator": folder}, private=False, message="m")


@pytest.mark.parametrize("name", ["electramed", "me/", "https://huggingface.co/me/electramed", "me/a/b"])
def test_an_invalid_repository_is_refused_before_anything_is_uploaded(name):
    with pytest.raises(UserError, match="wanted USER/NAME"):
        push_to_hub.name_repositories(name, {"discriminator": "folder"})


def test_a_name_that_the_hub_forbids_is_reported(hub, folder):
    with pytest.raises(UserError, match="not a valid repository name"):
        push_to_hub.push_folders({"me/a--b": folder}, private=False, message="m")


def test_a_remote_folder_is_refused(hub):
    with pytest.raises(UserError, match="only a local folder"):
        push_to_hub.push_folders({"me/electramed": "gs://bucket/folder"}, private=False, message="m")
