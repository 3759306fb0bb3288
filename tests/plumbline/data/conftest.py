"""Reading small files made on the spot."""

from __future__ import annotations

import json

import pytest

from plumbline.data.reader import DataFormatConfig, ExampleReader
from plumbline.data.uses import USES


@pytest.fixture
def read(tmp_path):
    """Write records as JSON lines, and return their examples with the report."""

    def make(records, use="demonstrations", strict=False, name="rows.jsonl", **config):
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        reader = ExampleReader(path, USES[use], DataFormatConfig(**config), strict=strict)
        examples = [row.example for row in reader]
        return examples, reader.report

    return make
