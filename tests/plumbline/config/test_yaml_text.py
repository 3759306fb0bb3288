"""YAML of anyone's: refused with file and line, in a moment, and without filling the memory."""

from __future__ import annotations

import time

import pytest
from pydantic import Field

from plumbline.config import Config, Seed, Seeds, load
from plumbline.config.yaml_text import parse_yaml
from plumbline.errors import ConfigError


class Settings(Config):
    """Settings of every type."""

    seed: Seed = 0
    """Seed."""
    seeds: Seeds = (0,)
    """Seeds."""
    rate: float = 1.0
    """Rate."""
    count: int = 1
    """Count."""
    names: dict[str, str] = Field({})
    """Names."""


#: Each level stands for ten of the one before: 10^12 values in 700 bytes.
BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
BAD = {
    "alias-bomb": (BOMB.encode(), 5, "more than 20,000 values"),
    "alias-in-itself": (b"seeds: &a [*a]\n", 1, "stands inside itself"),
    "deep": (b"a: " + b"[" * 5000, 1, "more than 32 deep"),
    "deep-mappings": (b"a: " + b"{a: " * 5000, 1, "more than 32 deep"),
    "utf-16": ("seeds: [0]\n".encode("utf-16"), 1, "UTF-16. Save it as UTF-8"),
    "latin-1": ("seeds: [0]\n# caf\xe9\n".encode("latin-1"), 2, "0xe9 is not UTF-8"),
    "nul": (b"seeds: [0]\nrate: 1\x00\n", 2, "U+0000 is not allowed"),
    "control": (b"seeds: [0]\n# \x07\n", 2, "U+0007 is not allowed"),
    "list-as-key": (b"seed: 0\n? [a, b]\n: 2\n", 2, "is not a text"),
    "null-as-key": (b"names:\n  a: b\n  null: c\n", 3, "is not a text"),
    "truth-as-key": (b"names: {true: c}\n", 1, "is not a text"),
    "infinity": (b"seed: 0\nrate: .inf\n", 2, "not a finite number"),
    "not-a-number": (b"rate: .nan\n", 1, "not a finite number"),
    "too-large-a-float": (b"rate: 1e999\n", 1, "not a finite number"),
    "many-digits": (b"seed: " + b"9" * 5000 + b"\n", 1, "a number of 5000 digits"),
    "beyond-64-bits": (b"seed: 0\ncount: 99999999999999999999\n", 2, "beyond what 64 bits hold"),
    "large-seed": (b"rate: 1\nseed: 4294967296\n", 2, "less than or equal to 4294967295"),
    "negative-seed": (b"seed: -1\n", 1, "greater than or equal to 0"),
    "range-of-seeds": (b"seeds: 0-4000000000\n", 1, "1 to 1,000 seeds"),
    "long-seed": (b"seeds: '00000000000000000000000000000001'\n", 1, "not a list of seeds"),
    "object": (b"seed: !!python/object/apply:os.getcwd []\n", 1, "is not allowed"),
    "binary": (b"names: {a: !!binary aGVsbG8=}\n", 1, "is not allowed"),
    "own-tag": (b"names: {a: !secret b}\n", 1, "is not allowed"),
    "twice-the-same-key": (b"seed: 0\nseed: 1\n", 2, "not valid YAML"),
    "two-documents": (b"seed: 0\n---\nseed: 1\n", 2, "not valid YAML"),
    "unclosed": (b"seed: [0\n", 2, "not valid YAML"),
    "date": (b"count: 2026-01-01\n", 1, "count"),
    "too-long": (b"# " + b"x" * (1 << 20), None, "at most 1,048,576"),
}


@pytest.mark.parametrize(("content", "line", "said"), BAD.values(), ids=BAD)
def test_bad_yaml_is_refused_with_file_and_line(tmp_path, content, line, said):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    started = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        load(Settings, path)
    assert time.monotonic() - started < 5
    message = str(caught.value)
    assert said in message and len(message) < 500
    assert message.startswith(f"{path}, line {line}: " if line is not None else str(path))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("[1", "not valid YAML"), (".inf", "not a finite number"), ("9" * 5000, "5000 digits"),
        ("!!python/name:os.getcwd ''", "is not allowed"), ("\x00", "U+0000"),
        ("{a: &a [*a]}", "stands inside itself"), ("\udcff", "U+DCFF"),
    ],
)  # fmt: skip
def test_a_value_of_the_command_line_is_held_to_the_same(value, said):
    with pytest.raises(ConfigError) as caught:
        load(Settings, None, [f"rate={value}"])
    assert said in str(caught.value)
    assert str(caught.value).startswith("--set") and len(str(caught.value)) < 500


def test_what_people_write_is_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(
        b"\xef\xbb\xbfbase: &base {rate: 1e-3}\nseeds: 0-2\n"
        b"names: {1: one, '\xc3\xa9': \"tab\\t\"}\nagain: {<<: *base, count: 3}\n"
    )

    class Two(Settings):
        """With groups."""

        base: Settings = Settings()
        """Base."""
        again: Settings = Settings()
        """Again."""

    config = load(Two, path)
    assert config.again == Settings(rate=1e-3, count=3)
    assert config.names == {"1": "one", "\xe9": "tab\t"}
    assert config.seeds == (0, 1, 2)


def test_an_alias_is_a_value_like_any_other():
    assert parse_yaml("a: &x [1, 2]\nb: *x\n", "text") == {"a": [1, 2], "b": [1, 2]}
