"""Full-text search by SQLite's FTS5, kept in step by the database itself.

Triggers write the index in the transaction that writes the record. A server that is killed between
the two cannot leave them apart, because there is no between.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .dialects import Dialect

#: Texts of records, one row per field; the index stores no copy.
_TABLES = (
    """
    CREATE TABLE IF NOT EXISTS plumbline_texts (
      id INTEGER PRIMARY KEY,
      record_id CHAR(32) NOT NULL,
      field TEXT NOT NULL,
      content TEXT NOT NULL
    )
    """,
    "CREATE INDEX IF NOT EXISTS plumbline_texts_record ON plumbline_texts (record_id)",
    """
    CREATE VIRTUAL TABLE IF NOT EXISTS plumbline_search USING fts5 (
      content, content='plumbline_texts', content_rowid='id',
      tokenize='unicode61 remove_diacritics 2'
    )
    """,
)
#: A chat's roles and a picture's address (which may be the whole picture) are no text that anyone
#: searches for.
_TEXTS_OF = """
  INSERT INTO plumbline_texts (record_id, field, content)
  SELECT {record}.id, field.key, (
    SELECT group_concat(leaf.atom, char(10)) FROM json_tree({record}.fields, field.fullkey) AS leaf
    WHERE leaf.type = 'text' AND (leaf.key IS NOT 'role' OR field.type <> 'array')
  ) AS content
  FROM {source}json_each({record}.fields) AS field
  WHERE content IS NOT NULL AND field.key NOT IN (
    SELECT name FROM fields
    WHERE fields.dataset_id = {record}.dataset_id
      AND json_extract(fields.settings, '$.type') = 'image'
  )
"""
_TEXTS_OF_NEW = _TEXTS_OF.format(record="new", source="")
_TRIGGERS = {
    "plumbline_record_added": f"""
      AFTER INSERT ON records BEGIN {_TEXTS_OF_NEW}; END
    """,
    "plumbline_record_changed": f"""
      AFTER UPDATE OF fields ON records WHEN old.fields IS NOT new.fields BEGIN
        DELETE FROM plumbline_texts WHERE record_id = old.id;
        {_TEXTS_OF_NEW};
      END
    """,
    "plumbline_record_removed": """
      AFTER DELETE ON records BEGIN DELETE FROM plumbline_texts WHERE record_id = old.id; END
    """,
    "plumbline_text_added": """
      AFTER INSERT ON plumbline_texts BEGIN
        INSERT INTO plumbline_search (rowid, content) VALUES (new.id, new.content);
      END
    """,
    "plumbline_text_removed": """
      AFTER DELETE ON plumbline_texts BEGIN
        INSERT INTO plumbline_search (plumbline_search, rowid, content)
        VALUES ('delete', old.id, old.content);
      END
    """,
}
#: Records from before the triggers, or from a restored database that never had them.
_CATCH_UP = (
    _TEXTS_OF.format(record="records", source="records, ")
    + "AND records.id NOT IN (SELECT record_id FROM plumbline_texts)"
)
#: More words than anyone types; SQLite's own limits lie further out.
MOST_TERMS = 200


def statements() -> list[str]:
    """Return the SQL that makes the index, or finds it made; safe to run at every start."""
    sql = [*_TABLES]
    for name, body in _TRIGGERS.items():
        # Argilla's migrations may replace its tables, and a table's triggers are lost with it.
        sql += [f"DROP TRIGGER IF EXISTS {name}", f"CREATE TRIGGER {name} {body}"]
    return [*sql, _CATCH_UP]


@dataclass(frozen=True)
class Term:
    """One thing to look for."""

    words: str
    prefix: bool = False
    excluded: bool = False

    @property
    def within(self) -> str | None:
        """The term as LIKE reads it, where the script has no spaces between words; or None.

        The index reads a whole run of such letters as one word, and would not find a part of it.
        """
        if not _UNSPACED.search(self.words):
            return None
        return "%" + re.sub(r"([\\%_])", r"\\\1", self.words) + "%"


_TOKEN = re.compile(r'(?P<minus>-?)(?:"(?P<phrase>[^"]*)"?|(?P<word>[^\s"]+))')
_LETTER = re.compile(r"[^\W_]")
#: Thai and its neighbours, kana, and Chinese characters.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)


def parse(query: str) -> list[list[Term]]:
    """Return what a query asks for: every group must hold, and any term makes its group hold.

    The language is the part of Elasticsearch's ``simple_query_string`` that the page's users know:
    all words must occur, ``"a phrase"``, ``begin*``, ``-without`` and ``this|that``.
    """
    groups: list[list[Term]] = []
    join_next = False
    # To SQLite a NUL is the end of a text.
    query = query.replace("\0", " ").replace("|", " | ").replace("+", " ")
    for token in _TOKEN.finditer(query):
        text = token["phrase"] if token["phrase"] is not None else token["word"]
        if text == "|":
            join_next = bool(groups)
            continue
        prefix = token["phrase"] is None and text.endswith("*")
        words = text.rstrip("*") if prefix else text
        if not _LETTER.search(words):
            continue
        term = Term(words, prefix, excluded=token["minus"] == "-")
        if join_next:
            groups[-1].append(term)
        else:
            groups.append([term])
        join_next = False
    return groups


def conditions(query: str, field: str | None, dialect: Dialect) -> tuple[list[str], dict[str, str]]:
    """Return SQL conditions on ``records`` for a query, and their parameters.

    A query with no word in it matches everything, as an empty search box does. Raises `ValueError`
    (to Argilla: 422) for a query of more than `MOST_TERMS` words.
    """
    groups = parse(query)
    if sum(map(len, groups)) > MOST_TERMS:
        raise ValueError(f"A search may have {MOST_TERMS} words at most.")
    parameters: dict[str, str] = {}
    expressions: list[str] = []
    in_field = ""
    if field is not None:
        in_field = " AND texts.field = :text_field"
        parameters["text_field"] = field
    for group in groups:
        either = []
        for term in group:
            name = f"text_{len(parameters)}"
            within = term.within
            parameters[name] = within or dialect.term(term.words, prefix=term.prefix)
            holding = dialect.holding(name, within=within is not None, prefix=term.prefix)
            condition = f"records.id IN (SELECT texts.record_id FROM {holding}{in_field})"
            either.append(f"NOT {condition}" if term.excluded else dialect.one_of_many(condition))
        expressions.append(f"({' OR '.join(either)})")
    return expressions, parameters
