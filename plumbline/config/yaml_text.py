"""Reading YAML that anyone may have written: anything but plain settings is refused, with its line.

A YAML text can name a part of itself again and again until it stands for terabytes (an alias bomb),
nest without end, or hold objects. Before anything is built of it, its events are counted here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from plumbline.errors import ConfigError

MOST_BYTES = 1 << 20
MOST_VALUES = 20_000
DEEPEST = 32
#: Whole numbers beyond this fit into no tensor, table or random generator.
LARGEST = 2**63 - 1

_NOT_IN_YAML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MANY_DIGITS = re.compile(r"[-+]?[0-9_]{100,}")
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")}
_ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def read_yaml(path: Path) -> CommentedMap:
    """Read a config file as keys and values, with the line of each key.

    Raises `ConfigError` with file and line.
    """
    if not path.is_file():
        raise ConfigError(f"There is no config file {path}.")
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ConfigError(f"{path} has {size:,} bytes; a config has at most {MOST_BYTES:,}.")
    data = parse_yaml(_decoded(path.read_bytes(), path), str(path), YAML())
    if data is None:
        return CommentedMap()
    if not isinstance(data, CommentedMap):
        raise ConfigError(
            f"{path} holds {type(data).__name__}, but a config must be keys and values."
        )
    return data


def parse_yaml(text: str, source: str, yaml: YAML | None = None) -> Any:
    """Return what a YAML text holds: mappings with text as keys, lists, numbers, texts, null.

    ``source`` is what errors call it. Raises `ConfigError`.
    """
    strange = _NOT_IN_YAML.search(text)
    if strange is not None:
        line = text.count("\n", 0, strange.start()) + 1
        raise ConfigError(
            f"{source}, line {line}: the character U+{ord(strange[0]):04X} is not allowed in YAML. "
            "Remove it, or write it as an escape in double quotes."
        )
    try:
        _check_events(text, source)
        data = (yaml or YAML(typ="safe")).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{source}, line {mark.line + 1}" if mark is not None else source
        raise ConfigError(f"{place}: this is not valid YAML: {error.problem}.") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: this is not valid YAML: {error}.") from None
    _check_values(data, source, ())
    return data


def _decoded(content: bytes, path: Path) -> str:
    encoding = _ENCODINGS.get(content[:2])
    if encoding is not None:
        raise ConfigError(f"{path}, line 1: the file is {encoding}. Save it as UTF-8.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}, line {line}: the byte 0x{content[error.start]:02x} is not UTF-8. Save the "
            "file as UTF-8."
        ) from None


def _check_events(text: str, source: str) -> None:
    """Refuse what is too deep, too much, or an object, before anything is built."""
    sizes: dict[str, int] = {}  # values that each anchor stands for
    counts: list[int] = [0]  # values so far, for each level that is open
    anchors: list[str | None] = [None]
    for event in YAML(pure=True).parse(text):
        place = f"{source}, line {event.start_mark.line + 1}"
        if isinstance(event, AliasEvent):
            if event.anchor in anchors:
                raise ConfigError(f"{place}: *{event.anchor} stands inside itself.")
            counts[-1] += sizes.get(event.anchor, 1)
        elif isinstance(event, ScalarEvent):
            counts[-1] += 1
            if event.style is None and _MANY_DIGITS.fullmatch(event.value):
                raise ConfigError(f"{place}: a number of {len(event.value)} digits is too long.")
            if event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, MappingStartEvent | SequenceStartEvent):
            counts.append(1)
            anchors.append(event.anchor)
            if len(counts) > DEEPEST + 1:
                raise ConfigError(f"{place}: settings are nested more than {DEEPEST} deep.")
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            size, anchor = counts.pop(), anchors.pop()
            counts[-1] += size
            if anchor is not None:
                sizes[anchor] = size
        tag = getattr(event, "tag", None)
        if tag is not None and str(tag) not in _PLAIN_TAGS:
            raise ConfigError(f"{place}: the tag {tag} is not allowed; give a plain value.")
        if counts[-1] > MOST_VALUES:
            raise ConfigError(
                f"{place}: the settings hold more than {MOST_VALUES:,} values, with what aliases "
                "(*name) stand for."
            )


def _check_values(value: Any, source: str, path: tuple[str, ...], line: int | None = None) -> None:
    """Refuse keys that are not texts, and numbers that no setting can have."""
    place = source if line is None else f"{source}, line {line}"
    if isinstance(value, Mapping):
        for key, item in value.items():
            lines = getattr(value, "lc", None)
            here = (
                lines.key(key)[0] + 1 if lines is not None and key in (lines.data or {}) else line
            )
            if not isinstance(key, str) and (not isinstance(key, int) or isinstance(key, bool)):
                raise ConfigError(
                    f"{source if here is None else f'{source}, line {here}'}: the key {key!r} is "
                    "not a text. Put it in quotes if it is meant."
                )
            _check_values(item, source, (*path, str(key)), here)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            _check_values(item, source, path, line)
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise ConfigError(
            f"{place}: {'.'.join(path) or 'the value'} is beyond what 64 bits hold ({LARGEST:,})."
        )
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(
            f"{place}: {'.'.join(path) or 'the value'} is {value}, which is not a finite number."
        )
