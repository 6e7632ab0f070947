from __future__ import annotations

import errno
import os

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files


@pytest.fixture(params=["local", "memory", "gs"])
def folder(request, folder_in) -> str:
    """A fresh folder, on disk and in remote storage."""
    return folder_in(request.param)


def test_written_bytes_are_read_back_whole_and_in_ranges(folder):
    path = files.join(folder, "deep", "file.bin")
    with files.atomic_write(path) as file:
        file.write(b"0123456789")
    assert files.exists(path) and not files.is_dir(path) and files.is_dir(files.join(folder, "deep"))
    assert files.size(path) == 10
    assert files.read_bytes(path) == b"0123456789"
    assert files.read_range(path, 3, 4) == b"3456"
    assert files.read_range(path, 8, 4) == b"89"
    with files.open_read(path) as file:
        assert file.read(2) == b"01"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(folder):
    path = files.join(folder, "file.txt")
    files.write_text(path, "old")

    def write_and_fail() -> None:
        with files.atomic_write(path) as file:
            file.write(b"half of the new")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_and_fail()
    assert files.read_text(path) == "old"
    assert files.list_dir(folder) == ["file.txt"]


def test_a_file_is_not_visible_before_it_is_complete(folder):
    path = files.join(folder, "file.txt")
    with files.atomic_write(path) as file:
        file.write(b"all")
        file.flush()
        assert not files.exists(path)
    assert files.exists(path)


def test_a_full_disk_is_a_user_error_and_leaves_no_file(tmp_path, monkeypatch):
    def no_space(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(UserError, match=r"file\.txt: disk full after 3 bytes; no partial file is left"):
        files.write_text(str(tmp_path / "file.txt"), "abc")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EROFS, "read-only file system; choose a folder on another one"),
        (errno.EDQUOT, "the disk quota is used up; free some space"),
        (errno.ELOOP, "its symbolic links form a circle"),
        (errno.ENAMETOOLONG, "the name is too long"),
        (errno.EIO, "the disk or network storage fails"),
        (errno.EOWNERDEAD, "Owner died; check the path and the storage"),
    ],
)
@pytest.mark.parametrize(
    ("function", "use"),
    [
        ("open", lambda path: files.write_text(path, "x")),
        ("open", files.read_bytes),
        ("os.makedirs", files.make_dirs),
        ("os.replace", lambda path: files.write_text(path, "x")),
        ("os.stat", files.size),
    ],
)
def test_an_error_of_the_operating_system_is_a_user_error_that_names_the_path(
    tmp_path, monkeypatch, number, message, function, use
):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    path = str(tmp_path / "file.txt")
    monkeypatch.setattr(f"builtins.{function}" if function == "open" else function, fail)
    with pytest.raises(UserError) as error:
        use(path)
    assert str(error.value).startswith(str(tmp_path)) and message in str(error.value)


def test_paths_that_no_file_system_has_are_user_errors(tmp_path):
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(UserError, match="symbolic links form a circle"):
        files.read_bytes(str(tmp_path / "circle"))
    with pytest.raises(UserError, match="the name is too long"):
        files.write_text(str(tmp_path / ("x" * 300)), "")
    with pytest.raises(UserError, match="NUL character"):
        files.read_bytes(str(tmp_path / "a\0b"))


def test_text_with_a_file_name_that_is_not_unicode_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"a\.json: cannot hold .*not valid Unicode"):
        files.write_json(str(tmp_path / "a.json"), {"file": os.fsdecode(b"caf\xe9.txt")})
    assert os.listdir(tmp_path) == []


def test_move_and_remove_work_on_files_and_trees(folder):
    files.write_text(files.join(folder, "a.txt"), "a")
    files.move(files.join(folder, "a.txt"), files.join(folder, "b.txt"))
    assert files.list_dir(folder) == ["b.txt"]
    files.remove(files.join(folder, "b.txt"))
    files.remove(files.join(folder, "b.txt"))
    files.write_text(files.join(folder, "tree", "c.txt"), "c")
    files.remove(files.join(folder, "tree"))
    assert not files.exists(files.join(folder, "tree", "c.txt"))


def test_glob_gives_each_file_once_and_sorted(folder):
    for name in ("c.txt", *(f"{letter}.xml" for letter in "hgfedcba")):
        files.write_text(files.join(folder, name), name)
    found = files.glob([files.join(folder, "*.xml"), files.join(folder, "a.xml")])
    wanted = [f"{letter}.xml" for letter in "abcdefgh"]
    assert [name.rsplit("/", 1)[-1] for name in found] == wanted
    assert [files.read_text(name) for name in found] == wanted


def test_a_pattern_that_matches_nothing_is_named(folder):
    pattern = files.join(folder, "*.xml.gz")
    with pytest.raises(UserError) as error:
        files.glob([pattern])
    assert str(error.value).startswith(f"{pattern}: no such file and no match")


def test_a_folder_in_place_of_files_suggests_a_pattern(folder):
    files.write_text(files.join(folder, "a.xml"), "")
    with pytest.raises(UserError, match=r"is a folder.*\*\.xml\.gz"):
        files.glob([folder])


def test_a_file_with_pattern_characters_in_its_name_is_found(tmp_path):
    path = tmp_path / "a[1].xml"
    path.write_text("x")
    assert files.glob([str(path)]) == [str(path)]


def test_a_link_without_a_target_is_named(tmp_path):
    (tmp_path / "a.xml").symlink_to(tmp_path / "gone.xml")
    for pattern in ("a.xml", "*.xml"):
        with pytest.raises(UserError, match=r"/a\.xml: a link to .*/gone\.xml, which does not exist"):
            files.glob([str(tmp_path / pattern)])


def test_a_file_name_that_is_not_utf8_is_named(tmp_path):
    with open(os.fsencode(tmp_path) + b"/caf\xe9.xml", "wb"):
        pass
    with pytest.raises(UserError, match=r"/caf\\xe9\.xml: the name of the file is not UTF-8; rename the file"):
        files.glob([str(tmp_path / "*.xml")])


def test_folders_that_a_pattern_matches_are_named(tmp_path, capsys):
    (tmp_path / "more").mkdir()
    with pytest.raises(UserError, match=r"\*: matches only folders; .*for all subfolders use '.*/\*\*/\*'"):
        files.glob([str(tmp_path / "*")])
    (tmp_path / "a.xml").write_text("x")
    assert files.glob([str(tmp_path / "*")]) == [str(tmp_path / "a.xml")]
    assert f"{tmp_path}/*: matches also 1 folder; the files in {tmp_path}/more are not read" in capsys.readouterr().err
    assert files.glob([str(tmp_path / "**")]) == [str(tmp_path / "a.xml")]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("read", [files.read_bytes, files.size, files.sha256, files.list_dir])
def test_a_missing_file_is_a_user_error_that_names_it(folder, read):
    path = files.join(folder, "absent.txt")
    with pytest.raises(UserError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: no such file")


def test_bad_json_is_located(folder):
    path = files.join(folder, "a.json")
    files.write_text(path, '{"a": 1,\n "b": }')
    with pytest.raises(UserError, match=r"a\.json, line 2, column 7: not valid JSON"):
        files.read_json(path)


def test_json_is_written_in_the_order_given_and_ends_with_a_newline(folder):
    path = files.join(folder, "a.json")
    files.write_json(path, {"b": "β", "a": [1]})
    assert files.read_text(path) == '{\n  "b": "β",\n  "a": [\n    1\n  ]\n}\n'
    assert files.read_json(path) == {"b": "β", "a": [1]}


def test_text_that_is_not_utf8_is_rejected_with_the_byte(folder):
    path = files.join(folder, "a.txt")
    with files.atomic_write(path) as file:
        file.write(b"abc\xff")
    with pytest.raises(UserError, match=r"not UTF-8 text \(byte 3\)"):
        files.read_text(path)


def test_sha256_is_the_published_digest(folder):
    path = files.join(folder, "a.txt")
    files.write_text(path, "abc")
    assert files.sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_file_where_a_folder_is_wanted_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="a file is in the place of a folder"):
        files.write_text(str(tmp_path / "file" / "inner.txt"), "y")


def test_an_unknown_storage_is_a_user_error():
    with pytest.raises(UserError, match="wanted a local path or gs://"):
        files.read_bytes("nosuch://bucket/file")


@pytest.mark.parametrize(
    ("base", "parts", "wanted"),
    [
        ("a", ("b", "c"), "a/b/c"),
        ("a/", ("b",), "a/b"),
        ("/", ("b",), "/b"),
        ("", ("b",), "b"),
        ("gs://bucket/", ("x", "y"), "gs://bucket/x/y"),
    ],
)
def test_join_keeps_local_paths_and_urls_well_formed(base, parts, wanted):
    assert files.join(base, *parts) == wanted


def test_sizes_are_those_of_the_files_and_leave_out_folders(folder):
    files.write_text(files.join(folder, "b.txt"), "12345")
    files.write_text(files.join(folder, "a.txt"), "")
    files.write_text(files.join(folder, "deep", "c.txt"), "1")
    assert files.sizes(folder) == {"a.txt": 0, "b.txt": 5}


def test_a_buffer_is_filled_as_far_as_the_file_goes(folder):
    path = files.join(folder, "file")
    files.write_text(path, "0123456789")
    buffer = bytearray(4)
    assert files.read_into(path, 2, buffer) == 4 and buffer == b"2345"
    assert files.read_into(path, 8, buffer) == 2 and buffer == b"8945"


def test_an_open_file_is_seekable(folder):
    path = files.join(folder, "file")
    files.write_text(path, "0123456789")
    with files.open_read(path) as file:
        file.seek(-3, os.SEEK_END)
        assert (file.tell(), file.read()) == (7, b"789")
        file.seek(1)
        assert (file.read(2), file.tell()) == (b"12", 3)
        assert file.read() == b"3456789" and file.read() == b""


def test_files_of_another_process_are_visible_at_once(gcs):
    files.write_text("gs://bucket/folder/ours", "x")
    assert files.list_dir("gs://bucket/folder") == ["ours"]
    gcs.objects["bucket/folder/theirs"] = b"y"
    assert files.exists("gs://bucket/folder/theirs") and files.list_dir("gs://bucket/folder") == ["ours", "theirs"]


@pytest.mark.parametrize("size", [100, 6 << 20])  # in one request, and in parts
@pytest.mark.parametrize("failure", ["503", "silence"])
def test_a_failed_upload_is_retried_and_never_partly_visible(gcs, size, failure):
    path = "gs://bucket/file"
    files.write_text(path, "old")
    gcs.fail("bucket/file", *[failure] * 8)  # more than gcsfs tries by itself
    with files.atomic_write(path) as file:
        file.write(b"n" * size)
        assert gcs.objects["bucket/file"] == b"old"
    assert gcs.objects["bucket/file"] == b"n" * size


def test_a_truncated_response_is_requested_again(gcs):
    files.write_text("gs://bucket/file", "0123456789")
    gcs.fail("bucket/file", *["break", "503", "silence"] * 3)
    assert files.read_range("gs://bucket/file", 2, 5) == b"23456"


def test_storage_that_stays_unavailable_is_a_user_error(gcs, caplog, capsys):
    files.write_text("gs://bucket/file", "0123456789")
    gcs.fail("bucket/file", *["503"] * 100)
    with pytest.raises(UserError, match="gs://bucket/file: storage does not answer .*503"):
        files.read_bytes("gs://bucket/file")
    assert caplog.text == "" and capsys.readouterr() == ("", "")
