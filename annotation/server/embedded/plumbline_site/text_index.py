"""Full-text search by SQLite's FTS5, kept in step by the database itself.

Triggers write the index in the transaction that writes the record. A server that is killed between
the two cannot leave them apart, because there is no between.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Texts of records, one row a field; the index stores no copy of its own.
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
#: A chat's roles are no text that anyone searches for.
_TEXTS_OF = """
  INSERT INTO plumbline_texts (record_id, field, content)
  SELECT {record}.id, field.key, (
    SELECT group_concat(leaf.atom, char(10)) FROM json_tree({record}.fields, field.fullkey) AS leaf
    WHERE leaf.type = 'text' AND leaf.key IS NOT 'role'
  ) AS content
  FROM json_each({record}.fields) AS field
  WHERE content IS NOT NULL{more}
"""
_TRIGGERS = {
    "plumbline_record_added": f"""
      AFTER INSERT ON records BEGIN {_TEXTS_OF.format(record="new", more="")}; END
    """,
    "plumbline_record_changed": f"""
      AFTER UPDATE OF fields ON records WHEN old.fields IS NOT new.fields BEGIN
        DELETE FROM plumbline_texts WHERE record_id = old.id;
        {_TEXTS_OF.format(record="new", more="")};
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
_CATCH_UP = """
  INSERT INTO plumbline_texts (record_id, field, content)
  SELECT records.id, field.key, (
    SELECT group_concat(leaf.atom, char(10)) FROM json_tree(records.fields, field.fullkey) AS leaf
    WHERE leaf.type = 'text' AND leaf.key IS NOT 'role'
  ) AS content
  FROM records, json_each(records.fields) AS field
  WHERE content IS NOT NULL
    AND records.id NOT IN (SELECT record_id FROM plumbline_texts)
"""


def statements() -> list[str]:
    """Return the SQL that makes the index, or finds it made; safe to run at every start."""
    made = [*_TABLES]
    for name, body in _TRIGGERS.items():
        # Argilla's migrations may remake its tables, and triggers go with a table: made anew.
        made += [f"DROP TRIGGER IF EXISTS {name}", f"CREATE TRIGGER {name} {body}"]
    return [*made, _CATCH_UP]


@dataclass(frozen=True)
class Term:
    """One thing to look for."""

    match: str
    """As FTS5 reads it: always quoted, so that nobody's words are taken for operators."""
    excluded: bool = False


_TOKEN = re.compile(r'(?P<minus>-?)(?:"(?P<phrase>[^"]*)"?|(?P<word>[^\s"]+))')


def parse(query: str) -> list[list[Term]]:
    """Return what a query asks for: every group must hold, and any term makes its group hold.

    The language is the part of Elasticsearch's ``simple_query_string`` that the page's users know:
    all words must occur, ``"a phrase"``, ``begin*``, ``-without`` and ``this|that``.
    """
    groups: list[list[Term]] = []
    join_next = False
    for token in _TOKEN.finditer(query.replace("|", " | ").replace("+", " ")):
        text = token["phrase"] if token["phrase"] is not None else token["word"]
        if text == "|":
            join_next = bool(groups)
            continue
        prefix = token["phrase"] is None and text.endswith("*")
        words = text.rstrip("*") if prefix else text
        if not re.search(r"\w", words):
            continue
        term = Term(
            match='"' + words.replace('"', '""') + '"' + ("*" if prefix else ""),
            excluded=token["minus"] == "-",
        )
        if join_next:
            groups[-1].append(term)
        else:
            groups.append([term])
        join_next = False
    return groups


def conditions(query: str, field: str | None) -> tuple[list[str], dict[str, str]]:
    """Return SQL conditions on ``records`` for a query, and their parameters.

    A query with no word in it matches everything, as an empty search box does.
    """
    parameters: dict[str, str] = {}
    found: list[str] = []
    within = ""
    if field is not None:
        within = " AND texts.field = :text_field"
        parameters["text_field"] = field
    for group in parse(query):
        either = []
        for term in group:
            name = f"text_{len(parameters)}"
            parameters[name] = term.match
            either.append(
                f"records.id {'NOT IN' if term.excluded else 'IN'} ("
                "SELECT texts.record_id FROM plumbline_search "
                "JOIN plumbline_texts AS texts ON texts.id = plumbline_search.rowid "
                f"WHERE plumbline_search MATCH :{name}{within})"
            )
        found.append(f"({' OR '.join(either)})")
    return found, parameters
