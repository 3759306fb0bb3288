"""What PostgreSQL gets beside Argilla's tables, kept in step by the database itself.

- ``rowid``: the order in which rows came, which SQLite has by itself.
- ``plumbline_texts``: the texts of records for searching, without marks and in small letters.
- A record's status, set in the transaction that stores an answer. Argilla sets it in a second
  transaction, before which a process may be killed.
- ``plumbline_site``: which site the database belongs to.

Of a very long text, the first 250,000 characters are searched: PostgreSQL's index of one text ends
at a megabyte.
"""

from __future__ import annotations

#: NUL and lone surrogates are possible in JSON, and not in PostgreSQL's texts.
_JSON = r"""
  CREATE OR REPLACE FUNCTION plumbline_json(given json) RETURNS jsonb
  LANGUAGE plpgsql IMMUTABLE STRICT AS $$
  BEGIN
    RETURN given::jsonb;
  EXCEPTION WHEN data_exception THEN
    RETURN regexp_replace(
      given::text, '(?<!\\)((\\\\)*)\\u(0000|[dD][89a-fA-F][0-9a-fA-F]{2})', '\1 ', 'g')::jsonb;
  END $$
"""
#: A text in words of small letters without marks. For ASCII the same comes in half the time.
_PLAIN = r"""
  CREATE OR REPLACE FUNCTION plumbline_plain(given text) RETURNS text
  LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT CASE WHEN octet_length(part) = char_length(part)
      THEN regexp_replace(lower(part COLLATE "C"), '[^a-z0-9]+', ' ', 'g')
      ELSE regexp_replace(
        lower(regexp_replace(normalize(part, NFD), '[\u0300-\u036f]+', '', 'g')
          COLLATE "und-x-icu"),
        '[^[:alnum:]]+', ' ', 'g') COLLATE "C" END
    FROM (SELECT left(given, 250000) AS part) AS short
  $$
"""
_QUERY = """
  CREATE OR REPLACE FUNCTION plumbline_query(given text, is_prefix boolean) RETURNS tsquery
  LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT CASE WHEN is_prefix AND numnode(query) > 0
      THEN CAST(CAST(query AS text) || ':*' AS tsquery) ELSE query END
    FROM phraseto_tsquery('pg_catalog.simple', plumbline_plain(given)) AS query
  $$
"""
#: A chat's roles and a picture's address are no text that anyone searches for.
_TEXTS_OF = """
  CREATE OR REPLACE FUNCTION plumbline_texts_of(record records)
  RETURNS TABLE (field text, content text) LANGUAGE sql STABLE AS $$
    SELECT entry.key, (
      SELECT string_agg(leaf.atom #>> '{}', E'\\n' ORDER BY leaf.place)
      FROM jsonb_path_query(
        CASE WHEN jsonb_typeof(entry.value) = 'array' THEN (
          SELECT jsonb_agg(CASE WHEN jsonb_typeof(part) = 'object' THEN part - 'role' ELSE part END)
          FROM jsonb_array_elements(entry.value) AS part
        ) ELSE entry.value END,
        'strict $.** ? (@.type() == "string")'
      ) WITH ORDINALITY AS leaf(atom, place)
    )
    FROM jsonb_each(plumbline_json(record.fields)) AS entry
    WHERE NOT EXISTS (
      SELECT 1 FROM fields WHERE fields.dataset_id = record.dataset_id AND fields.name = entry.key
      AND fields.settings ->> 'type' = 'image'
    )
  $$
"""
_ADD_TEXTS = """
  INSERT INTO plumbline_texts (record_id, field, content, words)
  SELECT {record}.id, texts.field, texts.content,
    to_tsvector('pg_catalog.simple', plumbline_plain(texts.content))
  FROM {source}plumbline_texts_of({record}) AS texts WHERE texts.content IS NOT NULL
"""
_INDEX = f"""
  CREATE OR REPLACE FUNCTION plumbline_index() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    IF TG_OP = 'UPDATE' THEN DELETE FROM plumbline_texts WHERE record_id = NEW.id; END IF;
    {_ADD_TEXTS.format(record="NEW", source="")};
    RETURN NULL;
  END $$
"""
#: The record is locked before its answers are counted. So of two people who answer at once, the
#: second counts both answers.
_STATUS = """
  CREATE OR REPLACE FUNCTION plumbline_status() RETURNS trigger LANGUAGE plpgsql AS $$
  DECLARE
    changed uuid := CASE WHEN TG_OP = 'DELETE' THEN OLD.record_id ELSE NEW.record_id END;
    submitted bigint;
  BEGIN
    PERFORM 1 FROM records WHERE id = changed FOR NO KEY UPDATE;
    SELECT count(*) INTO submitted FROM responses
    WHERE record_id = changed AND responses.status = 'submitted';
    UPDATE records SET status = wanted.status, updated_at = timezone('utc', now())
    FROM (
      SELECT CAST(CASE WHEN submitted >= CAST(datasets.distribution ->> 'min_submitted' AS integer)
        THEN 'completed' ELSE 'pending' END AS record_status_enum) AS status
      FROM records JOIN datasets ON datasets.id = records.dataset_id WHERE records.id = changed
    ) AS wanted
    WHERE records.id = changed AND records.status <> wanted.status;
    RETURN NULL;
  END $$
"""
_TABLES = (
    *(f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS rowid bigserial"
      for name in ("records", "responses", "questions")),
    "CREATE TABLE IF NOT EXISTS plumbline_site (id text PRIMARY KEY)",
    """
    CREATE TABLE IF NOT EXISTS plumbline_texts (
      record_id uuid NOT NULL REFERENCES records (id) ON DELETE CASCADE,
      field text NOT NULL,
      content text NOT NULL,
      words tsvector NOT NULL
    )
    """,
    "CREATE INDEX IF NOT EXISTS plumbline_texts_record ON plumbline_texts (record_id)",
    "CREATE INDEX IF NOT EXISTS plumbline_texts_words ON plumbline_texts USING gin (words)",
)  # fmt: skip
_TRIGGERS = {
    "plumbline_record_added": "AFTER INSERT ON records FOR EACH ROW EXECUTE FUNCTION "
    "plumbline_index()",
    "plumbline_record_changed": "AFTER UPDATE OF fields ON records FOR EACH ROW WHEN "
    "(CAST(OLD.fields AS text) <> CAST(NEW.fields AS text)) EXECUTE FUNCTION plumbline_index()",
    "plumbline_answered": "AFTER INSERT OR DELETE OR UPDATE OF status ON responses FOR EACH ROW "
    "EXECUTE FUNCTION plumbline_status()",
}
#: Records from before the triggers.
_CATCH_UP = (
    _ADD_TEXTS.format(record="records", source="records, ")
    + "AND NOT EXISTS (SELECT 1 FROM plumbline_texts AS there WHERE there.record_id = records.id)"
)


def statements() -> list[str]:
    """Return the SQL that makes all this, or finds it made; safe to run at every start."""
    sql = [*_TABLES, _JSON, _PLAIN, _QUERY, _TEXTS_OF, _INDEX, _STATUS]
    for name, body in _TRIGGERS.items():
        sql.append(f"CREATE OR REPLACE TRIGGER {name} {body}")
    return [*sql, _CATCH_UP]
