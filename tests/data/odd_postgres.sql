-- Every type of PostgreSQL with the values that exporters lose. A table holds what belongs together, so
-- that the oddness of one column does not hide another's; each column has nulls, each table a row of
-- nothing else. `id` is first and unique, so that rows can be compared one by one. Loads into an empty
-- database with the contrib modules at hand; expects nothing to be there.

SET timezone = 'UTC';
SET extra_float_digits = 3;
CREATE EXTENSION hstore;
CREATE EXTENSION citext;

-- Numbers ---------------------------------------------------------------------------------------------

CREATE TABLE odd_numbers (
    id int PRIMARY KEY,
    b bool,
    i2 int2,
    i4 int4,
    i8 int8,
    f4 float4,
    f8 float8,
    n9_2 numeric(9, 2),
    n18_4 numeric(18, 4),
    n38_0 numeric(38, 0),
    n38_38 numeric(38, 38),
    n76_10 numeric(76, 10),
    n1000_500 numeric(1000, 500),
    negative_scale numeric(5, -3),
    scale_above_precision numeric(3, 5),
    undeclared numeric,
    cash money,
    o oid
);
INSERT INTO odd_numbers VALUES
    (1, true, 32767, 2147483647, 9223372036854775807, '3.4028235e38', '1.7976931348623157e308',
     9999999.99, 99999999999999.9999, 99999999999999999999999999999999999999,
     0.99999999999999999999999999999999999999, repeat('9', 66)::numeric + 0.9999999999,
     repeat('9', 500)::numeric, 99999000, 0.00999, (repeat('9', 131072) || '.5')::numeric,
     '92233720368547758.07', 4294967295),
    (2, false, -32768, -2147483648, -9223372036854775808, '-3.4028235e38', '-1.7976931348623157e308',
     -9999999.99, -99999999999999.9999, -99999999999999999999999999999999999999,
     -0.99999999999999999999999999999999999999, -repeat('9', 66)::numeric - 0.9999999999,
     -repeat('9', 500)::numeric, -99999000, -0.00999, ('-0.' || repeat('1', 16383))::numeric,
     '-92233720368547758.08', 2147483648),
    (3, true, 0, 0, 0, '1e-45', '5e-324', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    (4, false, -1, -1, -1, '-0', '-0', -0.01, -0.0001, -1, -1e-38, -1e-10, -1e-500, -1000, -0.00001,
     1.10, '-0.01', 1),
    (5, NULL, 1, 1, 9007199254740993, '1.17549435e-38', '2.2250738585072014e-308', 0.01, 0.0001, 1,
     1e-38, 1e-10, 1e-500, 1499, 0.00001, 1.1000, '0.01', 16384),
    (6, true, 10000, 100000000, 10000000000000000, '0.1', '0.1', 10000, 100000000, 1e37, 0.1, 10000.0001,
     10000.00010001, 500, 0.001, 12345678901234567890.12345678901234567890, '1234567.89', 2147483647),
    (7, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL);

-- What no decimal holds.
CREATE TABLE odd_floats (
    id int PRIMARY KEY,
    f4 float4,
    f8 float8,
    declared_nan numeric(18, 4),
    undeclared numeric
);
INSERT INTO odd_floats VALUES
    (1, 'NaN', 'NaN', 'NaN', 'NaN'),
    (2, 'Infinity', 'Infinity', 1.5, 'Infinity'),
    (3, '-Infinity', '-Infinity', -1.5, '-Infinity'),
    (4, '-0', '-0', 0, 0),
    (5, '1e-45', '5e-324', 0.0001, 1e-1000),
    (6, NULL, NULL, NULL, NULL);

-- Times -----------------------------------------------------------------------------------------------

CREATE TABLE odd_times (
    id int PRIMARY KEY,
    d date,
    t time,
    t3 time(3),
    ttz timetz,
    ts timestamp,
    ts0 timestamp(0),
    tstz timestamptz,
    i interval,
    year_to_month interval year to month,
    second2 interval second(2)
);
INSERT INTO odd_times VALUES
    (1, 'infinity', '24:00:00', '24:00:00', '24:00:00+15:59:59', 'infinity', 'infinity', 'infinity',
     '178000000 years', '178000000 years', '1 second'),
    (2, '-infinity', '00:00', '00:00', '00:00-15:59:59', '-infinity', '-infinity', '-infinity',
     '-178000000 years', '-178000000 years', '-1.25 seconds'),
    (3, '5874897-12-31', '23:59:59.999999', '23:59:59.999', '23:59:59.999999+05:30',
     '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59', '294276-12-31 23:59:59.999999+00',
     '-1 year 2 mons -3 days 04:05:06.000007', '1 year 2 mons', '0.01 seconds'),
    (4, '4713-01-01 BC', '00:00:00.000001', '00:00:00.001', '12:00:00.000001-08',
     '4713-01-01 00:00:00 BC', '4713-01-01 00:00:00 BC', '4713-01-01 00:00:00+00 BC',
     '1 mon -1 day', '-1 mons', '59.99 seconds'),
    (5, '0001-12-31 BC', '12:34:56.123456', '12:34:56.123', '12:34:56+00',
     '0001-12-31 23:59:59.999999 BC', '0001-12-31 23:59:59 BC', '0044-03-15 12:00:00+00 BC',
     '-00:00:00.000001', '0', '0'),
    (6, '1970-01-01', '12:00', '12:00', '12:00+05:30', '1969-12-31 23:59:59.999999',
     '1970-01-01 00:00:00', '1970-01-01 00:00:00+00', '2562047788 hours 54.775807 seconds', '1 year',
     '100 hours'),
    (7, '2000-02-29', '01:02:03', '01:02:03', '01:02:03-03:30', '2000-02-29 01:02:03.4',
     '2000-02-29 01:02:03', '2024-06-15 12:34:56.789012+02', '30 days 24 hours', '12 mons', '60 seconds'),
    (8, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

-- The last day that fits nanoseconds, the first that does not, and Julian days.
CREATE TABLE odd_nanoseconds (
    id int PRIMARY KEY,
    ts timestamp,
    tstz timestamptz
);
INSERT INTO odd_nanoseconds VALUES
    (1, '2262-04-11 23:47:16.854775', '2262-04-11 23:47:16.854775+00'),
    (2, '2262-04-11 23:47:16.854776', '2262-04-11 23:47:16.854776+00'),
    (3, '1677-09-21 00:12:43.145225', '1677-09-21 00:12:43.145225+00'),
    (4, '1677-09-21 00:12:43.145224', '1677-09-21 00:12:43.145224+00'),
    (5, '1582-10-10 00:00', '1582-10-10 00:00+00'),
    (6, NULL, NULL);

-- Texts and bytes -------------------------------------------------------------------------------------

CREATE TABLE odd_texts (
    id int PRIMARY KEY,
    t text,
    v varchar,
    v5 varchar(5),
    c5 char(5),
    c1 char,
    "char" "char",
    n name,
    ci citext,
    c_collated text COLLATE "C",
    b bytea
);
INSERT INTO odd_texts VALUES
    (1, '', '', '', '', '', '', '', '', '', ''),
    (2, E'line\nfeed\r\n\ttab', E'a\\b', 'ab', 'ab', 'x', 'x', 'ab', 'Ab', 'ab', '\x00'),
    (3, '👩‍👩‍👧 Zoë ß 漢字 ' || chr(1114109), '🙂', '🙂🙂🙂🙂🙂', '🙂', 'ß', E'\\200', repeat('n', 63), 'ÄÖ',
     'Ä', '\x00ff00ff00'),
    (4, 'NULL', 'null', 'NULL', '  a', ' ', ' ', ' ', 'NULL', '\N', '\xdeadbeef'),
    (5, '\N', '\.', '\.', '\N', '\', E'\\377', '"', '''', '"', E'\\\\N'),
    (6, repeat('long ', 200000), repeat('x', 100000), '     ', '     ', '"', '"', E'\n', E'\n', E'\x01\x7f',
     decode(repeat('00010203fcfdfeff', 40000), 'hex')),
    (7, U&'e\0301', U&'\00e9', U&'\FEFFa', U&'\200B', ',', ',', '{}', U&'\00a0', U&'\2028', 'text'),
    (8, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

-- Everything else that has one value ------------------------------------------------------------------

CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy, "very"', '');
CREATE TYPE pair AS (a int, "B, quoted" text);
CREATE TYPE nested AS (p pair, at timestamptz, list int[]);
CREATE TYPE float_range AS RANGE (subtype = float8);
CREATE DOMAIN positive AS int CHECK (value > 0);
CREATE DOMAIN short AS varchar(5);
CREATE DOMAIN price AS numeric(10, 2) NOT NULL DEFAULT 0;
CREATE DOMAIN of_domain AS positive CHECK (value < 1000);

CREATE TABLE odd_others (
    id int PRIMARY KEY,
    u uuid,
    j json,
    jb jsonb,
    x xml,
    e mood,
    p pair,
    nest nested,
    whole_row odd_nanoseconds,
    pos positive,
    sh short,
    dd of_domain,
    bit1 bit,
    bit8 bit(8),
    bits varbit,
    ip inet,
    net cidr,
    mac macaddr,
    mac8 macaddr8,
    h hstore,
    jp jsonpath,
    tv tsvector,
    tq tsquery
);
INSERT INTO odd_others VALUES
    (1, '00000000-0000-0000-0000-000000000000', 'null', 'null', '<a/>', 'sad', '(1,x)',
     ROW (ROW (1, 'x')::pair, 'infinity', '{1,2}'), '(1,infinity,-infinity)', 1, '', 1, B'0',
     B'10101010', B'', '0.0.0.0/0', '0.0.0.0/0', '00:00:00:00:00:00', '00:00:00:00:00:00:00:00', '', '$',
     '', ''),
    (2, 'ffffffff-ffff-ffff-ffff-ffffffffffff', ' { "a": 1.10, "a" :2,  "b":null } ',
     '{"a": 1.10, "b": [1, 2.00, 1e400], "ü": "\\u0041\n"}',
     E'<a b="c">\n  <!-- kept --> &amp; text</a>', 'happy, "very"', '(,)', ROW (NULL, NULL, NULL),
     '(,,)', 2147483647, 'abcde', 999, B'1', B'00000000', B'1', '192.168.0.1', '192.168.0.0/16',
     'ff:ff:ff:ff:ff:ff', 'ff:ff:ff:ff:ff:ff:ff:ff', 'a=>1, "b c"=>NULL, ""=>"q\"uote"',
     '$.a[*] ? (@.b > 1.50)', '''a'':1A,2B ''b c'':3', '''a'' & !''b'' | ''c'':*'),
    (3, '12345678-9abc-def0-1234-56789abcdef0', '[]', '"text"', 'text only', 'ok',
     ROW (-1, E'line\nfeed, "quoted" (and) \\'), ROW (ROW (NULL, '')::pair, '4713-01-01 BC', '{}'),
     ROW (1, NULL, '2024-01-01'), 7, '🙂', 7, NULL, B'11111111', B'101010101', '10.1.2.3/8',
     '2001:db8::/32', '08:00:2b:01:02:03', '08:00:2b:ff:fe:01:02:03', NULL, NULL, NULL, NULL),
    (4, NULL, '{}', '{}', '', '', NULL, NULL, NULL, NULL, NULL, NULL, B'0', NULL, repeat('10', 500)::varbit,
     '::1', '::/0', NULL, NULL, 'a=>1', 'strict $', 'a', 'a'),
    (5, NULL, '1', '-0.0', NULL, 'ok', '(,"")', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     '::ffff:1.2.3.4/128', '1.2.3.4/32', NULL, NULL, NULL, NULL, NULL, NULL),
    (6, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, NULL, NULL, NULL, NULL);

-- A null in a column of a domain that forbids nulls, which an outer join can store.
CREATE TABLE odd_domain AS
    SELECT l.id, r.p FROM generate_series(1, 2) AS l (id)
    LEFT JOIN (VALUES (1, 1.50::price)) AS r (id, p) USING (id);

CREATE TABLE odd_ranges (
    id int PRIMARY KEY,
    i4 int4range,
    i8 int8range,
    n numrange,
    ts tsrange,
    tstz tstzrange,
    d daterange,
    f float_range,
    i4m int4multirange,
    tstzm tstzmultirange
);
INSERT INTO odd_ranges VALUES
    (1, 'empty', 'empty', 'empty', 'empty', 'empty', 'empty', 'empty', '{}', '{}'),
    (2, '(,)', '(,)', '(,)', '(,)', '(,)', '(,)', '(,)', '{(,)}', '{(,)}'),
    (3, '[1,2]', '(1,9223372036854775807)', '[1.10,NaN]', '[-infinity,infinity]', '[2024-01-01,)',
     '[2024-01-01,2024-01-31]', '(-0,5e-324]', '{[1,2],[4,5)}',
     '{[2024-01-01,2024-01-02),[2024-02-01,infinity)}'),
    (4, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

CREATE TABLE odd_geometry (
    id int PRIMARY KEY,
    po point,
    li line,
    ls lseg,
    bo box,
    pa path,
    pg polygon,
    ci circle
);
INSERT INTO odd_geometry VALUES
    (1, '(1,2)', '{1,2,3}', '[(0,0),(1,1)]', '(1,1),(0,0)', '[(0,0),(1,1)]', '((0,0),(1,1),(1,0))', '<(0,0),1>'),
    (2, '(NaN,-Infinity)', '{0,-1,0}', '[(0,0),(0,0)]', '(0,0),(0,0)', '((0,0),(1,1))', '((0,0))',
     '<(1e300,5e-324),0>'),
    (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

-- Names of the server's own objects: numbers inside, names as text.
CREATE TABLE odd_system (
    id int PRIMARY KEY,
    cls regclass,
    typ regtype,
    fn regprocedure,
    ns regnamespace,
    ti tid,
    xi xid,
    x8 xid8,
    ci cid,
    lsn pg_lsn,
    snap pg_snapshot,
    acl aclitem,
    iv int2vector,
    ov oidvector
);
INSERT INTO odd_system VALUES
    (1, 'odd_numbers', 'timestamptz', 'abs(int4)', 'pg_catalog', '(0,1)', '1', '1', '1', '0/0', '1:1:',
     ('=r/' || quote_ident(current_user))::aclitem, '1 2', '1 2'),
    (2, '0', '0', '0', '0', '(4294967295,65535)', '4294967295', '18446744073709551615', '4294967295',
     'FFFFFFFF/FFFFFFFF', '10:20:10,14,15', NULL, '-32768 32767', '4294967295'),
    (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

-- Arrays ----------------------------------------------------------------------------------------------

-- Of one dimension from 1, so that lists hold them.
CREATE TABLE odd_lists (
    id int PRIMARY KEY,
    b bool[],
    i2 int2[],
    i4 int4[],
    i8 int8[],
    f4 float4[],
    f8 float8[],
    n numeric[],
    n9_2 numeric(9, 2)[],
    d date[],
    t time[],
    ts timestamp[],
    tstz timestamptz[],
    i interval[],
    tx text[],
    v varchar(5)[],
    c char(3)[],
    by bytea[],
    u uuid[],
    j json[],
    jb jsonb[],
    e mood[],
    p pair[],
    r int4range[],
    ip inet[],
    dom positive[]
);
INSERT INTO odd_lists VALUES
    (1, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}',
     '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}'),
    (2, '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}',
     '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}',
     '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}'),
    (3, '{t,NULL,f}', '{-32768,NULL,32767}', '{-2147483648,NULL,2147483647}',
     '{-9223372036854775808,NULL,9223372036854775807}', '{-0,NaN,NULL,Infinity,1e-45}',
     '{-0,NaN,NULL,-Infinity,5e-324}', '{1.10,NULL,12345678901234567890.12345678901234567890}',
     '{1.10,NULL,-9999999.99}', '{2024-02-29,NULL,1582-10-10}', '{00:00,NULL,23:59:59.999999}',
     '{2024-02-29 01:02:03.456789,NULL}', '{2024-02-29 01:02:03.456789+00,NULL}',
     '{1 mon -1 day 00:00:00.000001,NULL}',
     ARRAY['', NULL, 'NULL', 'null', 'a,b', 'q"uote', 'back\slash', '{}', E'line\nfeed', '🙂'],
     '{ab,NULL,🙂🙂🙂🙂🙂}', '{ab,NULL}', ARRAY['\x'::bytea, NULL, '\x00ff'],
     '{00000000-0000-0000-0000-000000000000,NULL,ffffffff-ffff-ffff-ffff-ffffffffffff}',
     ARRAY['null'::json, NULL, ' {"a" :1}'], ARRAY['null'::jsonb, NULL, '{"a": 1.10}'],
     ARRAY['', NULL, 'happy, "very"']::mood[], ARRAY[ROW (1, 'x,"y"'), NULL, ROW (NULL, NULL)]::pair[],
     '{empty,NULL,"[1,3)"}', '{::1,NULL,10.0.0.0/8}', '{1,NULL,2147483647}'),
    (4, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

-- Of several dimensions, or from another index than 1, or with elements that their type cannot hold.
CREATE TABLE odd_arrays (
    id int PRIMARY KEY,
    two_d int[],
    three_d text[][][],
    bounds int[],
    mixed int[],
    n9_2 numeric(9, 2)[],
    d date[],
    tstz timestamptz[],
    t time[]
);
INSERT INTO odd_arrays VALUES
    (1, '{{1,2},{3,4}}', '{{{a,NULL},{"",c}}}', '[2:3]={1,2}', '{1,2}', '{1.10,NaN}', '{infinity}',
     '{-infinity,2024-01-01 00:00+00}', '{24:00:00}'),
    (2, '{{NULL,NULL}}', '{}', '[-1:1]={1,NULL,3}', '{{1,2}}', '{NaN}', '{2024-01-01,-infinity}',
     '{294276-12-31 00:00+00,4713-01-01 00:00+00 BC}', '{00:00,24:00:00}'),
    (3, '{}', '{{{x}}}', '[0:1][5:6]={{1,2},{3,4}}', '[0:1]={1,2}', '{1.10}', '{}', '{}', '{}'),
    (4, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

-- Columns that are not plain --------------------------------------------------------------------------

CREATE TABLE odd_columns (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    by_default bigint GENERATED BY DEFAULT AS IDENTITY (START 100 INCREMENT -10 MINVALUE -1000 MAXVALUE 1000),
    number serial,
    a int,
    dropped text,
    "two  spaces" int,
    "Upper" int,
    "quote""d" int,
    "select" int,
    "naïve 🙂" int,
    "tableoid " oid,
    "back\slash" int,
    "$1" int,
    " " int,
    generated int GENERATED ALWAYS AS (a * 2) STORED,
    generated_text text GENERATED ALWAYS AS (coalesce(a::text, 'none')) STORED
);
INSERT INTO odd_columns (a, dropped, "two  spaces", "Upper", "quote""d") VALUES
    (1, 'gone', 1, 2, 3), (NULL, 'gone', NULL, NULL, NULL), (1073741823, NULL, 4, 5, 6);
ALTER TABLE odd_columns DROP COLUMN dropped;
-- The rows above have no bytes for these.
ALTER TABLE odd_columns ADD COLUMN added_null text;
ALTER TABLE odd_columns ADD COLUMN added_default timestamptz DEFAULT '2024-02-29 01:02:03.456789+00';
INSERT INTO odd_columns (a, added_null, added_default) VALUES (2, 'x', NULL);

-- All of it is stored outside of the row, compressed or not.
CREATE TABLE odd_toast (
    id int PRIMARY KEY,
    extended text,
    external text,
    jb jsonb,
    list text[]
);
ALTER TABLE odd_toast ALTER COLUMN external SET STORAGE EXTERNAL;
INSERT INTO odd_toast VALUES
    (1, repeat('compressible ', 100000), repeat('not compressed ', 100000),
     (SELECT jsonb_object_agg('key' || i, i) FROM generate_series(1, 10000) AS i),
     (SELECT array_agg(repeat('x', i)) FROM generate_series(1, 1000) AS i)),
    (2, '', '', '{}', '{}'),
    (3, NULL, NULL, NULL, NULL);
