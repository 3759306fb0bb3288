"""Encryption at rest: what comes back, what does not, and what is said."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("cryptography")

from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.data import encryption
from plumbline.data.encryption import (
    KEY_FILE_VARIABLE,
    KEY_VARIABLE,
    SUFFIX,
    DataKey,
    data_key,
    decrypt_file,
    decrypt_text,
    encrypt_dataset,
    encrypt_file,
    encrypt_text,
    new_key,
    read_decrypted,
)
from plumbline.data.records import assistant, user, write_dataset
from plumbline.data.stored_rows import StoredRows
from plumbline.errors import ConfigError, DataError
from plumbline.runs.artifacts import Artifact
from plumbline.training.row_file import empty_folder

KEY = DataKey(bytes(range(32)), "the test")
FRAME = 64


@pytest.fixture
def small_frames(monkeypatch):
    monkeypatch.setattr(encryption, "FRAME", FRAME)


def test_what_is_decrypted_for_a_training_is_written_nowhere(stage, tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, KEY.secret.hex())
    rows = [{"messages": [user("Hello?"), assistant("Yes.")]}] * 3
    folder = tmp_path / "dataset"
    write_dataset(folder, {"train": rows}, kind="messages", title="M", description="")
    dataset = Artifact(folder)
    assert empty_folder(stage, dataset) == stage.scratch / "rows"
    encrypt_dataset(folder, KEY)
    assert empty_folder(stage, dataset) is None
    stored = StoredRows(folder, "train", stage.scratch)
    assert list(stored) == rows and stored[1] == rows[1]
    assert not stage.scratch.exists()


def encrypted(folder, content, name="train.parquet", key=KEY):
    path = folder / name
    path.write_bytes(content)
    return encrypt_file(path, key)


@pytest.mark.parametrize("size", [0, 1, FRAME - 1, FRAME, FRAME + 1, 3 * FRAME, 5 * FRAME + 7])
def test_any_length_comes_back_and_the_plain_file_is_gone(tmp_path, small_frames, size):
    content = os.urandom(size)
    path = encrypted(tmp_path, content)
    assert [file.name for file in tmp_path.iterdir()] == ["train.parquet.encrypted"]
    assert size < 8 or content not in path.read_bytes()
    assert read_decrypted(path, KEY) == content
    plain = decrypt_file(path, KEY)
    assert plain.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["train.parquet"]


def test_a_frame_can_be_read_by_the_library_alone(tmp_path):
    """The format as documented, read without our code."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    raw = encrypted(tmp_path, b"one short file").read_bytes()
    begin = len(b"plumbline-encrypted-1\n") + 4
    salt, header = raw[begin : begin + 16], raw[: begin + 18 + len("train.parquet")]
    assert header.endswith(b"\x00\x0dtrain.parquet")
    key = HKDF(SHA256(), 32, salt, b"plumbline file").derive(KEY.secret)
    nonce = bytes(11) + b"\x01"  # the first frame is the last one
    assert AESGCM(key).decrypt(nonce, raw[len(header) :], header) == b"one short file"


def test_every_changed_byte_is_noticed(tmp_path, small_frames):
    path = encrypted(tmp_path, b"x" * (2 * FRAME))
    raw = path.read_bytes()
    for place in range(len(raw)):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        with pytest.raises(DataError):
            read_decrypted(path, KEY)


def test_frames_that_are_missing_or_change_places_are_noticed(tmp_path, small_frames):
    path = encrypted(tmp_path, b"x" * (3 * FRAME))
    raw, sealed = path.read_bytes(), FRAME + 16
    body = raw[-3 * sealed :]
    parts = [body[at : at + sealed] for at in range(0, len(body), sealed)]
    head = raw[: -3 * sealed]
    for order in ([0, 1], [1, 0, 2], [0, 2], [0, 1, 2, 2]):
        path.write_bytes(head + b"".join(parts[n] for n in order))
        with pytest.raises(DataError, match="damaged or cut off"):
            read_decrypted(path, KEY)


def test_one_file_does_not_stand_in_for_another(tmp_path):
    path = encrypted(tmp_path, b"held out", "test.parquet")
    path.rename(tmp_path / f"train.parquet{SUFFIX}")
    with pytest.raises(DataError, match=r"encrypted as 'test\.parquet'"):
        read_decrypted(tmp_path / f"train.parquet{SUFFIX}", KEY)


def test_a_wrong_key_is_told_from_a_damaged_file(tmp_path):
    path = encrypted(tmp_path, b"content")
    with pytest.raises(DataError, match=rf"data key {KEY.id}; the one in a file is"):
        read_decrypted(path, DataKey(bytes(32), "a file"))
    path.write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(DataError, match="not a file that Plumbline encrypted"):
        read_decrypted(path, KEY)


def test_equal_content_is_equal_and_other_content_shares_no_frame(tmp_path, small_frames):
    one, two, three = tmp_path / "1", tmp_path / "2", tmp_path / "3"
    for folder in (one, two, three):
        folder.mkdir()
    content = b"x" * (2 * FRAME)
    first, second = (encrypted(folder, content).read_bytes() for folder in (one, two))
    assert first == second
    other = encrypted(three, content + b"y").read_bytes()
    assert first[-(FRAME + 16) :] not in other


@given(st.text(), st.text())
@settings(max_examples=40, deadline=None)
def test_a_text_comes_back_only_with_its_context(text, context):
    sealed = encrypt_text(text, KEY, context)
    assert sealed.isascii()
    assert decrypt_text(sealed, KEY, context) == text
    with pytest.raises(DataError, match="do not belong"):
        decrypt_text(sealed, KEY, context + "!")


def test_keys_from_a_file_and_from_the_environment(tmp_path, monkeypatch):
    for variable in (KEY_VARIABLE, KEY_FILE_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigError, match="No data key is set"):
        data_key()
    file = tmp_path / "key"
    key = new_key(file)
    assert file.stat().st_mode & 0o077 == 0
    with pytest.raises(ConfigError, match="exists"):
        new_key(file)
    assert data_key(file) == key
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(file))
    assert data_key().id == key.id
    monkeypatch.setenv(KEY_VARIABLE, bytes(range(32)).hex())
    assert data_key().id == KEY.id
    assert KEY.secret.hex() not in repr(KEY)


@pytest.mark.parametrize("text", ["", "abc", "g" * 64, "0" * 63, "0" * 66])
def test_what_is_no_key_is_refused_and_not_shown(monkeypatch, text, tmp_path):
    (tmp_path / "key").write_text(text)
    with pytest.raises(ConfigError, match="not a data key") as error:
        data_key(tmp_path / "key")
    assert not text or text not in str(error.value)


def test_an_encrypted_dataset_is_read_like_a_plain_one(tmp_path, monkeypatch, run):
    from plumbline.data.records import assistant, read_dataset, user, write_dataset

    rows = [{"messages": [user("What is it?"), assistant("A secret.")]}]
    data = tmp_path / "data"
    write_dataset(data, {"train": rows}, kind="messages", title="t", description="d")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.delenv(KEY_FILE_VARIABLE, raising=False)
    assert run("data", "encrypt", data) == 2  # no key
    key = tmp_path / "key"
    assert run("data", "new-key", key) == 0
    assert run("data", "encrypt", data, "--key-file", key) == 0
    assert sorted(file.name for file in data.iterdir()) == [
        "README.md", "dropped.jsonl.encrypted", "train.parquet.encrypted",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="No data key is set"):
        read_dataset(data, "train")
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(key))
    assert read_dataset(data, "train") == rows
    with pytest.raises(DataError, match="it has: train"):
        read_dataset(data, "test")
    monkeypatch.setenv(KEY_VARIABLE, KEY.secret.hex())
    with pytest.raises(DataError, match=f"is {KEY.id}"):
        read_dataset(data, "train")
    assert run("data", "decrypt", data, "--key-file", key) == 0
    assert read_dataset(data, "train") == rows


@pytest.fixture
def run():
    """Run a plumbline command; return its exit code."""
    from plumbline.commands.app import main

    def call(*words):
        try:
            main([str(word) for word in words])
        except SystemExit as ended:
            return ended.code or 0
        return 0

    return call
