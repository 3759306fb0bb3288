"""Records in the conversational formats that TRL documents, and where they are on disk.

======================  =====================================================================
kind                    columns
======================  =====================================================================
``messages``            ``messages``
``prompts``             ``prompt``
``prompt_completion``   ``prompt``, ``completion``
``preference``          ``prompt``, ``chosen``, ``rejected``
``unpaired``            ``prompt``, ``completion``, ``label``
``stepwise``            ``prompt``, ``completions``, ``labels``
======================  =====================================================================

Every one of these columns but ``label``, ``completions`` and ``labels`` holds a conversation: a
list of messages, each with a ``role`` and a ``content``, and where their source had them
``tool_calls``, ``name``,
``tool_call_id``, ``reasoning_content`` and ``weight`` (see `plumbline.data.messages`). Further
columns may stand beside them and are kept.

A dataset on disk is a folder with one Parquet file a split and a dataset card, which
``datasets.load_dataset(folder)`` reads as it is. What was left out is beside it in
``dropped.jsonl``, each row with its origin and the reason.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict, cast

from plumbline.data.encryption import SUFFIX, read_decrypted
from plumbline.dropped import DROPPED, Dropped, LeftOut
from plumbline.errors import DataError
from plumbline.seeds import derive

if TYPE_CHECKING:
    from datasets import Dataset, Features

    from plumbline.data.row_writer import RowWriter


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str
    tool_calls: NotRequired[list[dict[str, Any]]]
    name: NotRequired[str]
    tool_call_id: NotRequired[str]
    reasoning_content: NotRequired[str]
    weight: NotRequired[int]


Conversation = list[Message]
Row = dict[str, Any]
Kind = Literal["messages", "prompts", "prompt_completion", "preference", "unpaired", "stepwise"]

ROLES = ("system", "user", "assistant", "tool")
CONVERSATION_COLUMNS: Mapping[Kind, tuple[str, ...]] = {
    "messages": ("messages",),
    "prompts": ("prompt",),
    "prompt_completion": ("prompt", "completion"),
    "preference": ("prompt", "chosen", "rejected"),
    "unpaired": ("prompt", "completion"),
    "stepwise": ("prompt",),
}
#: Every column that may hold a conversation.
CONVERSATIONS = ("messages", "prompt", "completion", "chosen", "rejected", "a", "b")
_ROWS_READ_AT_ONCE, _BYTES_READ_AT_ONCE = 1000, 8 * 2**20
_as_json = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps makes an encoder for each call


def user(content: str) -> Message:
    """Return a user's message."""
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    """Return an assistant's message."""
    return {"role": "assistant", "content": content}


def prompt_id(prompt: Sequence[Message]) -> str:
    """Return an id of a prompt that depends on its text alone: 16 hexadecimal digits."""
    return f"{prompt_number(prompt):016x}"


def prompt_number(prompt: Sequence[Message]) -> int:
    """Return the id of a prompt as a number of 64 bits, for indexes of many."""
    text = _as_json([_spoken(message) for message in prompt])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _spoken(message: Message) -> list[Any]:
    """Return what tells a message from others: who says what, and which tools are called."""
    calls = message.get("tool_calls")
    return [message["role"], message["content"], *([calls] if calls else [])]


def is_held_out(prompt: Sequence[Message], share: float, data_seed: int) -> bool:
    """Return whether a prompt belongs to the held-out share: its text and the data seed decide."""
    return derive(data_seed, "held out", prompt_id(prompt)) / 2**63 < share


def opening(dialogue: Sequence[Message]) -> Conversation:
    """Return a dialogue up to the first response to a user.

    Dialogues that grow from each other share it, so a split by it has them all on one side.
    """
    turns: Conversation = []
    for message in dialogue:
        if message["role"] == "assistant" and any(turn["role"] == "user" for turn in turns):
            break
        turns.append(message)
    return turns


def problem_with(value: object) -> str | None:
    """Return what is wrong with a conversation, or None where nothing is."""
    if type(value) is not list and (  # the quick test first: there are millions of rows
        not isinstance(value, Sequence) or isinstance(value, str | bytes)
    ):
        return f"is {type(value).__name__}, not a list of messages"
    if len(value) == 0:
        return "has no message"
    for number, message in enumerate(value, 1):
        if type(message) is not dict and not isinstance(message, Mapping):
            return f"has a message {number} that is {type(message).__name__}, not an object"
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            return f"has the role {role!r} in message {number}; roles are {', '.join(ROLES)}"
        if not isinstance(content, str):
            return f"has {type(content).__name__} as content of message {number}, not text"
        if (not content or content.isspace()) and not message.get("tool_calls"):
            return f"has an empty message {number} ({role})"
    return None


def problem_with_row(row: Row, kind: Kind) -> str | None:
    """Return what keeps a row from being of a kind, or None where nothing does."""
    for column in CONVERSATION_COLUMNS[kind]:
        if column not in row:
            return f"has no column {column!r}"
        problem = problem_with(row[column])
        if problem is not None:
            return f"{column!r} {problem}"
    if kind == "unpaired" and not isinstance(row.get("label"), bool):
        return f"'label' is {row.get('label')!r}, not true or false"
    if kind == "stepwise" and not (row.get("completions") and row.get("labels")):
        return "has no steps in 'completions' with 'labels'"
    if kind != "messages" and (row["prompt"][-1]["role"] == "assistant"):
        return "'prompt' ends with the assistant's turn, so there is nothing to answer"
    return None


def as_json_lines(rows: Iterable[Mapping[str, object]]) -> str:
    """Return rows as the text of a JSON Lines file."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


class DatasetWriter:
    """Writes the rows of a dataset's splits as they come, so that their number does not matter.

    A split is there once `finish` returns. Where a block that this is entered for is left before,
    nothing of it stays.
    """

    def __init__(self, folder: Path, splits: Iterable[str], *, kind: Kind, title: str) -> None:
        from plumbline.data.row_writer import RowWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._kind, self._title = folder, kind, title
        self._files = {split: RowWriter(folder / f"{split}.parquet") for split in splits}

    def add(self, split: str, row: Row) -> None:
        """Write a row. Raises `DataError` where it is not of the stated kind."""
        file = self._files[split]
        problem = problem_with_row(row, self._kind)
        if problem is not None:
            raise DataError(f"{self._title}, split {split!r}, row {file.rows + 1}: {problem}.")
        file.add(row)

    def rows(self, split: str) -> int:
        """Return how many rows a split has so far."""
        return self._files[split].rows

    def finish(self, description: str, dropped: LeftOut | None = None) -> dict[str, float]:
        """Complete the dataset with its card; return the number of rows by split."""
        for file in self._files.values():  # an error in one leaves none of them
            file.complete()
        columns = {name for file in self._files.values() for name in file.finish()}
        dropped = dropped if dropped is not None else Dropped()
        dropped.write(self._folder)
        sizes = {split: file.rows for split, file in self._files.items()}
        card = dataset_card(
            sizes,
            sorted(columns),
            kind=self._kind,
            title=self._title,
            description=description,
            dropped=dropped,
            features=_different_features(self._files),
        )
        (self._folder / "README.md").write_text(card, encoding="utf-8")
        counts = {f"{split}_rows": float(rows) for split, rows in sizes.items()}
        return counts | {"dropped_rows": float(len(dropped))}

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.__exit__()


def write_dataset(
    folder: Path,
    splits: Mapping[str, Iterable[Row]],
    *,
    kind: Kind,
    title: str,
    description: str,
    dropped: LeftOut | None = None,
) -> dict[str, float]:
    """Write checked rows as Parquet with a dataset card; return the number of rows by split.

    Rows are taken one by one, split after split. Raises `DataError` at the first row that is not of
    the stated kind.
    """
    with DatasetWriter(folder, splits, kind=kind, title=title) as writer:
        for split, rows in splits.items():
            for row in rows:
                writer.add(split, row)
        return writer.finish(description, dropped)


def read_dataset(folder: Path, split: str) -> list[Row]:
    """Read one split of a dataset folder as a list of rows."""
    return list(iterate_dataset(folder, split))


def iterate_dataset(
    folder: Path, split: str, columns: Sequence[str] | None = None
) -> Iterator[Row]:
    """Yield the rows of one split of a dataset folder, of which few are in memory at once.

    ``columns``: which of them are read; None reads all.
    """
    import pyarrow.parquet as pq

    # With a buffer, it would hold the whole file once it has been read.
    with pq.ParquetFile(split_file(folder, split), pre_buffer=False) as file:
        for batch in file.iter_batches(rows_at_once(file), columns=columns):
            yield from rows_of_batch(batch)


def rows_at_once(file: Any) -> int:
    """Return how many rows of a Parquet file are read at once: some MiB of them, at most 1,000."""
    about = file.metadata
    size = sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))
    fitting: int = _BYTES_READ_AT_ONCE * about.num_rows // max(1, size)
    return max(1, min(_ROWS_READ_AT_ONCE, fitting))


def rows_of_batch(batch: Any) -> Iterator[Row]:
    """Yield the rows of an Arrow batch."""
    conversations = [name for name in batch.schema.names if name in CONVERSATIONS]
    for row in cast("list[Row]", batch.to_pylist()):
        for column in conversations:
            row[column] = [without_nulls(message) for message in row[column]]
        yield row


def number_of_rows(folder: Path, split: str) -> int:
    """Return how many rows a split has, without reading them."""
    import pyarrow.parquet as pq

    return int(pq.read_metadata(split_file(folder, split)).num_rows)


def columns_of(folder: Path, split: str) -> list[str]:
    """Return the names of a split's columns, without reading its rows."""
    import pyarrow.parquet as pq

    names: list[str] = pq.read_schema(split_file(folder, split)).names
    return names


def without_nulls(message: Mapping[str, Any]) -> Message:
    """Return a message without the keys that a table holds for other messages' sake."""
    if len(message) == 2:
        return cast("Message", message)
    held = {key: value for key, value in message.items() if value is not None}
    if "tool_calls" in held:
        held["tool_calls"] = [
            {key: value for key, value in call.items() if value is not None}
            for call in held["tool_calls"]
        ]
    return cast("Message", held)


def load_split(folder: Path, split: str) -> Dataset:
    """Load one split of a dataset folder."""
    import pyarrow.parquet as pq
    from datasets import Dataset

    # Straight from the table: Dataset.from_parquet would leave a copy in the user's cache folder.
    return Dataset(pq.read_table(split_file(folder, split)))


def split_file(folder: Path, split: str) -> Path | BytesIO:
    """Return the Parquet file of a split; of an encrypted dataset its content, decrypted."""
    path = folder / f"{split}.parquet"
    encrypted = path.with_name(path.name + SUFFIX)
    if path.exists():
        return path
    if encrypted.exists():
        return BytesIO(read_decrypted(encrypted))
    files = (*folder.glob("*.parquet"), *folder.glob(f"*.parquet{SUFFIX}"))
    splits = ", ".join(sorted(file.name.partition(".")[0] for file in files)) or "none"
    raise DataError(f"{folder} has no split {split!r}; it has: {splits}.")


def prompts_of(rows: Iterable[Row]) -> list[Conversation]:
    """Return the prompts of rows of any kind that has them."""
    return [row["prompt"] for row in rows]


def dataset_card(
    sizes: Mapping[str, int],
    columns: Sequence[str],
    *,
    kind: Kind,
    title: str,
    description: str,
    dropped: LeftOut,
    features: Features | None = None,
) -> str:
    """Return the card of a dataset, which ``datasets`` reads, too: its splits are named in it.

    A split without rows is not, since ``datasets`` opens no dataset that has one. ``features``:
    the columns of all splits, where these differ: it would take those of the first for all.
    """
    named = [split for split, size in sizes.items() if size] or list(sizes)
    files = "\n".join(f"  - split: {s}\n    path: {s}.parquet" for s in named)
    table = "\n".join(f"| {split} | {size} |" for split, size in sizes.items())
    reasons = "\n".join(
        f"| {reason} | {count} | {numbers} |" for reason, count, numbers in dropped.by_reason()
    )
    left_out = (
        f"\n## Left out\n\n{len(dropped)} rows, kept in `{DROPPED}` with their origin.\n\n"
        f"| reason | rows | row numbers |\n|---|---|---|\n{reasons}\n"
        if len(dropped)
        else "\nNothing was left out.\n"
    )
    return (
        f"---\n{_as_yaml(features)}configs:\n- config_name: default\n  data_files:\n{files}\n---\n"
        f"\n# {title}\n\n"
        f"{description}\n\nFormat: TRL `{kind}`; columns: {', '.join(columns)}.\n\n"
        f"| split | rows |\n|---|---|\n{table}\n{left_out}"
    )


def _different_features(files: Mapping[str, RowWriter]) -> Features | None:
    """Return the columns and types of all splits together; None where all have the same."""
    import pyarrow as pa
    from datasets import Features

    schemas = [file.schema for file in files.values() if file.rows]
    if all(schema.equals(schemas[0]) for schema in schemas):
        return None
    try:
        return Features.from_arrow_schema(pa.unify_schemas(schemas, promote_options="permissive"))
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # texts here and numbers there, say
        return None


def _as_yaml(features: Features | None) -> str:
    """Return the features of a dataset as its card holds them."""
    if features is None:
        return ""
    from datasets import DatasetInfo
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    card = DatasetCardData()
    DatasetInfosDict({"default": DatasetInfo(features=features)}).to_dataset_card_data(card)
    return f"{card.to_yaml()}\n"
