"""A version of a dataset as plain files, for people and other tools."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from plumbline.data.records import split_file
from plumbline.errors import DataError
from plumbline.runs.artifacts import Artifact
from plumbline.tables import Table
from sft.versions.differences import rows_of
from sft.wrong_answers import WRONG_ANSWERS


@dataclass(frozen=True)
class ExportFormat:
    """A kind of file that a version is written as."""

    name: str
    about: str
    write: Callable[[Path, Path, str], None]
    """From the version's folder, a new folder and a split."""
    ending: str
    """Of the name of its files."""


def _parquet(folder: Path, target: Path, split: str) -> None:
    file = split_file(folder, split)
    content = file.read_bytes() if isinstance(file, Path) else file.getvalue()
    (target / f"{split}.parquet").write_bytes(content)


def _jsonl(folder: Path, target: Path, split: str) -> None:
    with (target / f"{split}.jsonl").open("w", encoding="utf-8") as stream:
        for row in rows_of(folder, split):
            written = {name: held for name, held in row.items() if held is not None}
            for name in ("tools", WRONG_ANSWERS):
                if isinstance(written.get(name), str):
                    written[name] = json.loads(written[name])
            stream.write(json.dumps(written, ensure_ascii=False) + "\n")


def _sharegpt(folder: Path, target: Path, split: str) -> None:
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    with (target / f"{split}.json").open("w", encoding="utf-8") as stream:
        stream.write("[\n")
        for number, row in enumerate(rows_of(folder, split)):
            turns = []
            for turn in row["messages"]:
                if turn["role"] not in names or len(turn) > 2:
                    raise DataError(
                        f"{row['origin']}, row {row['row']} has tools, reasoning or weights, which "
                        "ShareGPT's format does not hold. Export it as jsonl."
                    )
                turns.append({"from": names[turn["role"]], "value": turn["content"]})
            text = json.dumps({"conversations": turns}, ensure_ascii=False)
            stream.write((",\n" if number else "") + text)
        stream.write("\n]\n")


EXPORT_FORMATS = Table(
    "export format",
    (
        ExportFormat(
            "parquet", "Parquet in TRL's format, as the version is kept", _parquet, "parquet"
        ),
        ExportFormat("jsonl", "one JSON object on each line, in TRL's format", _jsonl, "jsonl"),
        ExportFormat("sharegpt", "ShareGPT's conversations, for other trainers", _sharegpt, "json"),
    ),
)


def export(version: Artifact, target: Path, format_name: str) -> list[Path]:
    """Write a version into a new folder, with its card and what was left out; return the files."""
    if target.exists() and any(target.iterdir() if target.is_dir() else [target]):
        raise DataError(f"{target} is there already. Give a folder that is empty or new.")
    target.mkdir(parents=True, exist_ok=True)
    form = EXPORT_FORMATS[format_name]
    for split in ("train", "test"):
        form.write(version.path, target, split)
    for name in ("README.md", "dropped.jsonl", "build.json"):
        if (version.path / name).is_file():
            text = (version.path / name).read_text(encoding="utf-8")
            if name == "README.md":
                text = text.replace(".parquet\n", f".{form.ending}\n")
            (target / name).write_text(text, encoding="utf-8")
    return sorted(target.iterdir())
