-- Every kind of object of PostgreSQL beside plain tables: what must be taken part by part, taken with
-- ONLY, noted down or named as left out. Loads into an empty database by psql as a superuser, once a
-- server: it makes more databases and roles.

-- Partitions: by time with a default and sub-partitions by list and hash, one of them in another schema.
CREATE SCHEMA archive;
CREATE TABLE events (at timestamptz, kind text NOT NULL, value float8) PARTITION BY RANGE (at);
CREATE TABLE events_2023 PARTITION OF events
    FOR VALUES FROM ('2023-01-01 00:00+00') TO ('2024-01-01 00:00+00');
CREATE TABLE events_2024 PARTITION OF events
    FOR VALUES FROM ('2024-01-01 00:00+00') TO ('2025-01-01 00:00+00') PARTITION BY LIST (kind);
CREATE TABLE events_2024_a PARTITION OF events_2024 FOR VALUES IN ('a');
CREATE TABLE archive.events_2024_rest PARTITION OF events_2024 DEFAULT;
CREATE TABLE events_empty PARTITION OF events
    FOR VALUES FROM ('2025-01-01 00:00+00') TO ('2026-01-01 00:00+00');
CREATE TABLE events_default PARTITION OF events DEFAULT;
CREATE INDEX ON events (at);
INSERT INTO events VALUES
    ('2023-06-01 00:00+00', 'a', 1), ('2024-06-01 00:00+00', 'a', 2), ('2024-06-02 00:00+00', 'b', 3),
    ('2030-01-01 00:00+00', 'a', 4), (NULL, 'b', 5), ('infinity', 'a', 6);
-- A partition whose columns stand in another order, and had one more.
CREATE TABLE attached (gone int, value float8, kind text NOT NULL, at timestamptz);
ALTER TABLE attached DROP COLUMN gone;
ALTER TABLE events ATTACH PARTITION attached
    FOR VALUES FROM ('2022-01-01 00:00+00') TO ('2023-01-01 00:00+00');
INSERT INTO events VALUES ('2022-06-01 00:00+00', 'c', 7);
CREATE TABLE hashed (id int, note text) PARTITION BY HASH (id);
CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO hashed SELECT i, 'note ' || i FROM generate_series(1, 10) AS i;
CREATE TABLE no_partitions (at timestamptz) PARTITION BY RANGE (at);

-- Inheritance: counting the parent counts the children, copying it does not.
CREATE TABLE parent (id int, name text);
CREATE TABLE child (extra text) INHERITS (parent);
CREATE TABLE grandchild (more text) INHERITS (child);
INSERT INTO parent VALUES (1, 'parent');
INSERT INTO child VALUES (2, 'child', 'extra'), (3, 'child', NULL);
INSERT INTO grandchild VALUES (4, 'grandchild', 'extra', 'more');

-- Tables of other kinds.
CREATE TABLE no_columns ();
INSERT INTO no_columns SELECT FROM generate_series(1, 3);
CREATE TABLE empty (id int PRIMARY KEY, at timestamptz);
CREATE TABLE no_key (a int, b text);
INSERT INTO no_key VALUES (1, 'x'), (1, 'x'), (NULL, NULL), (NULL, NULL);
CREATE UNLOGGED TABLE unlogged (id int);
INSERT INTO unlogged VALUES (1);
CREATE TYPE typed_row AS (id int, name text);
CREATE TABLE typed OF typed_row (PRIMARY KEY (id));
INSERT INTO typed VALUES (1, 'typed');

-- Time, served cheaply or not.
CREATE TABLE by_btree (at timestamptz NOT NULL, value float8);
INSERT INTO by_btree
    SELECT '2024-01-01 00:00+00'::timestamptz + i * interval '1 hour', i FROM generate_series(0, 999) AS i;
CREATE INDEX ON by_btree (at);
CREATE TABLE by_brin AS TABLE by_btree;
CREATE INDEX ON by_brin USING brin (at) WITH (pages_per_range = 1);
CREATE TABLE by_nothing AS TABLE by_btree;
CREATE TABLE by_two (created_at timestamptz, updated_at timestamp, day date, value int);
INSERT INTO by_two SELECT at, at, at, value FROM by_btree;
CREATE INDEX ON by_two (created_at);
CREATE INDEX ON by_two (updated_at);
CREATE INDEX ON by_two (day);
CREATE TABLE by_partial_index AS TABLE by_btree;
CREATE INDEX ON by_partial_index (at) WHERE value > 500;
CREATE TABLE by_expression_index AS TABLE by_btree;
CREATE INDEX ON by_expression_index (date_trunc('day', at AT TIME ZONE 'UTC'));
CREATE TABLE by_second_column AS TABLE by_btree;
CREATE INDEX ON by_second_column (value, at);
CREATE TABLE time_with_oddities (at timestamptz, value int);
INSERT INTO time_with_oddities VALUES
    (NULL, 1), ('infinity', 2), ('-infinity', 3), ('4713-01-01 00:00+00 BC', 4),
    ('294276-12-31 23:59:59.999999+00', 5), ('2024-01-01 00:00+00', 6), ('2024-01-01 00:00+00', 7);
CREATE INDEX ON time_with_oddities (at);

-- Views.
CREATE VIEW plain_view AS SELECT id, name FROM parent;
CREATE RECURSIVE VIEW counting (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM counting WHERE n < 3;
CREATE MATERIALIZED VIEW materialized AS SELECT kind, count(*), sum(value) FROM events GROUP BY kind;
CREATE UNIQUE INDEX ON materialized (kind);
CREATE MATERIALIZED VIEW not_populated AS SELECT 1 AS one WITH NO DATA;

-- Foreign tables: one that cannot be reached, one that is a file, and a partition.
CREATE EXTENSION postgres_fdw;
CREATE SERVER unreachable FOREIGN DATA WRAPPER postgres_fdw
    OPTIONS (host '127.0.0.1', port '1', dbname 'nowhere', connect_timeout '2');
CREATE USER MAPPING FOR CURRENT_USER SERVER unreachable OPTIONS (user 'nobody', password 'secret of a mapping');
CREATE FOREIGN TABLE foreign_table (id int, name text) SERVER unreachable OPTIONS (table_name 'elsewhere');
CREATE EXTENSION file_fdw;
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE foreign_file (line text) SERVER files OPTIONS (program 'echo one line');
CREATE TABLE partly_foreign (at date, name text) PARTITION BY RANGE (at);
CREATE FOREIGN TABLE partly_foreign_2023 PARTITION OF partly_foreign
    FOR VALUES FROM ('2023-01-01') TO ('2024-01-01') SERVER unreachable;
CREATE TABLE partly_foreign_2024 PARTITION OF partly_foreign
    FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
INSERT INTO partly_foreign VALUES ('2024-06-01', 'local');

-- Rights: a role that may log in, sees one row of two, and may not read another table at all.
CREATE ROLE limited LOGIN PASSWORD 'limited secret';
CREATE ROLE the_group;
GRANT the_group TO limited WITH ADMIN OPTION;
ALTER ROLE limited SET statement_timeout = '1min';
CREATE TABLE secured (id int, owner text);
INSERT INTO secured VALUES (1, 'limited'), (2, 'somebody');
ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON secured USING (owner = current_user);
GRANT SELECT ON secured TO limited;
CREATE TABLE forced (id int, owner text);
INSERT INTO forced VALUES (1, 'limited'), (2, 'somebody');
ALTER TABLE forced ENABLE ROW LEVEL SECURITY;
ALTER TABLE forced FORCE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON forced FOR SELECT USING (owner = current_user);
CREATE TABLE forbidden (id int);
INSERT INTO forbidden VALUES (1);
CREATE TABLE some_columns (id int, hidden text);
INSERT INTO some_columns VALUES (1, 'hidden');
GRANT SELECT (id) ON some_columns TO limited;
GRANT SELECT ON by_btree, empty, plain_view TO limited;
CREATE SCHEMA locked;
CREATE TABLE locked.away (id int);
INSERT INTO locked.away VALUES (1);
GRANT SELECT ON locked.away TO limited;
ALTER DEFAULT PRIVILEGES IN SCHEMA archive GRANT SELECT ON TABLES TO limited;

-- Names.
CREATE SCHEMA "Weird ""Schema""";
CREATE TABLE "Weird ""Schema"""."Weird ""Name""" ("Weird ""Column""" int, "select" text);
INSERT INTO "Weird ""Schema"""."Weird ""Name""" VALUES (1, 'x');
CREATE TABLE "MixedCase" ("Id" int);
INSERT INTO "MixedCase" VALUES (1);
CREATE TABLE mixedcase ("id" int);
INSERT INTO mixedcase VALUES (2);
CREATE TABLE "select" ("from" int);
INSERT INTO "select" VALUES (1);
CREATE TABLE "a/b" (id int);
INSERT INTO "a/b" VALUES (1);
CREATE TABLE ".." (id int);
INSERT INTO ".." VALUES (1);
CREATE TABLE "naïve 🙂 100%" (id int);
INSERT INTO "naïve 🙂 100%" VALUES (1);
CREATE TABLE "with.dot" (id int);
INSERT INTO "with.dot" VALUES (1);
CREATE TABLE "a_name_of_63_bytes_which_is_as_long_as_postgresql_lets_names_be" (id int);
INSERT INTO "a_name_of_63_bytes_which_is_as_long_as_postgresql_lets_names_be" VALUES (1);
CREATE TABLE archive.events (id int, same_name text);
INSERT INTO archive.events VALUES (1, 'as in public');

-- Sequences: never used, used, owned, bounded.
CREATE SEQUENCE unused;
CREATE SEQUENCE used START 41;
DO $$ BEGIN PERFORM nextval('used'), nextval('used'); END $$;
CREATE SEQUENCE descending AS smallint INCREMENT -5 MINVALUE -100 MAXVALUE 100 START 100 CYCLE CACHE 10;
DO $$ BEGIN PERFORM nextval('descending'); END $$;
CREATE TABLE with_sequences (id serial PRIMARY KEY, ident bigint GENERATED ALWAYS AS IDENTITY, name text);
INSERT INTO with_sequences (name) VALUES ('a'), ('b');

-- What a schema is made of beside tables.
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN positive AS int CHECK (value > 0);
CREATE FUNCTION add(a int, b int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT a + b';
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.touched := 'epoch';  -- with a ; and a 'quote'
    RETURN NEW;
END
$$;
CREATE PROCEDURE nothing() LANGUAGE sql AS '';
CREATE AGGREGATE product(float8) (SFUNC = float8mul, STYPE = float8, INITCOND = '1');
CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq);
CREATE CAST (mood AS int) WITH INOUT;
CREATE COLLATION by_c FROM "C";
CREATE TABLE with_everything (
    id int PRIMARY KEY,
    parent int REFERENCES with_everything DEFERRABLE INITIALLY DEFERRED,
    feeling mood DEFAULT 'ok',
    amount positive CHECK (amount < 100),
    during tstzrange,
    touched timestamptz,
    UNIQUE (parent, feeling),
    EXCLUDE USING gist (during WITH &&)
);
CREATE TRIGGER touch BEFORE INSERT ON with_everything FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE RULE no_deletes AS ON DELETE TO with_everything DO INSTEAD NOTHING;
CREATE STATISTICS of_two ON parent, feeling FROM with_everything;
COMMENT ON TABLE with_everything IS 'a comment with ''quotes'' and a
line feed';
COMMENT ON COLUMN with_everything.amount IS 'less than 100';
INSERT INTO with_everything VALUES (1, NULL, 'sad', 1, '[2024-01-01,2024-01-02)'), (2, 1, NULL, NULL, NULL);
CREATE PUBLICATION of_one FOR TABLE with_everything;
CREATE FUNCTION on_drop() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER drops ON sql_drop EXECUTE FUNCTION on_drop();
CREATE TEXT SEARCH CONFIGURATION my_english (COPY = english);
-- Of an extension, which marks a table of its own as data.
CREATE EXTENSION hstore SCHEMA archive;

-- Large objects, one of them large and one empty.
DO $$ BEGIN
    PERFORM lo_from_bytea(1000001, '\x00ff'), lo_from_bytea(1000002, ''),
        lo_from_bytea(1000003, decode(repeat('00010203', 250000), 'hex'));
END $$;
COMMENT ON LARGE OBJECT 1000001 IS 'two bytes';
CREATE TABLE with_large_objects (id int, picture oid);
INSERT INTO with_large_objects VALUES (1, 1000001), (2, NULL);

-- A second database, one that nobody may connect to, and a template.
CREATE DATABASE "Second ""Database""";
CREATE DATABASE no_connections;
ALTER DATABASE no_connections ALLOW_CONNECTIONS false;
CREATE DATABASE a_template IS_TEMPLATE true;
ALTER DATABASE "Second ""Database""" SET timezone = 'Asia/Kathmandu';
SELECT current_database() AS first \gset
\connect "Second ""Database"""
CREATE TABLE of_second (id int, at timestamptz DEFAULT 'epoch');
INSERT INTO of_second VALUES (1);
\connect :"first"
