-- Every type of MariaDB with the values that exporters lose. A table holds what belongs together, so that
-- the oddness of one column does not hide another's; each column has nulls, each table a row of nothing
-- else. `id` is first and unique, so that rows can be compared one by one. Loads into an empty database.

SET sql_mode = '';
SET time_zone = '+00:00';
SET NAMES utf8mb4;

-- Numbers ---------------------------------------------------------------------------------------------

CREATE TABLE odd_numbers (
    id INT PRIMARY KEY,
    tiny TINYINT,
    tiny_u TINYINT UNSIGNED,
    tiny_1 TINYINT(1),
    bo BOOLEAN,
    small SMALLINT,
    small_u SMALLINT UNSIGNED,
    medium MEDIUMINT,
    medium_u MEDIUMINT UNSIGNED,
    i INT,
    int_u INT UNSIGNED,
    int_z INT(7) UNSIGNED ZEROFILL,
    big BIGINT,
    bigint_u BIGINT UNSIGNED,
    f FLOAT,
    f_u FLOAT UNSIGNED,
    f_7_3 FLOAT(7, 3),
    f_30 FLOAT(30),
    d DOUBLE,
    d_15_5 DOUBLE(15, 5),
    dec_9_2 DECIMAL(9, 2),
    dec_18_4 DECIMAL(18, 4),
    dec_38_0 DECIMAL(38, 0),
    dec_38_38 DECIMAL(38, 38),
    dec_39_0 DECIMAL(39, 0),
    dec_65_30 DECIMAL(65, 30),
    dec_65_0_u DECIMAL(65, 0) UNSIGNED,
    dec_z DECIMAL(10, 2) ZEROFILL,
    dec_default DECIMAL
);
INSERT INTO odd_numbers VALUES
    (1, 127, 255, 127, TRUE, 32767, 65535, 8388607, 16777215, 2147483647, 4294967295, 4294967295,
     9223372036854775807, 18446744073709551615, 3.40282e38, 3.40282e38, 9999.999, 1.7976931348623157e308,
     1.7976931348623157e308, 9999999999.99999, 9999999.99, 99999999999999.9999, REPEAT('9', 38),
     CONCAT('0.', REPEAT('9', 38)), REPEAT('9', 39), CONCAT(REPEAT('9', 35), '.', REPEAT('9', 30)),
     REPEAT('9', 65), 99999999.99, 9999999999),
    (2, -128, 0, -128, FALSE, -32768, 0, -8388608, 0, -2147483648, 0, 0, -9223372036854775808, 0,
     -3.40282e38, 0, -9999.999, -1.7976931348623157e308, -1.7976931348623157e308, -9999999999.99999,
     -9999999.99, -99999999999999.9999, CONCAT('-', REPEAT('9', 38)), CONCAT('-0.', REPEAT('9', 38)),
     CONCAT('-', REPEAT('9', 39)), CONCAT('-', REPEAT('9', 35), '.', REPEAT('9', 30)), 0, 0, -9999999999),
    (3, 0, 128, 2, 2, 0, 32768, 0, 8388608, 0, 2147483648, 42, 9007199254740993, 9223372036854775808,
     1.17549e-38, 1e-45, 0.001, 5e-324, 2.2250738585072014e-308, 0.00001, 0.01, 0.0001, 1, 1e-38, 1, 1e-30,
     1, 0.01, 0),
    (4, -1, 1, 1, -1, -1, 1, -1, 1, -1, 1, 1, -1, 1, '-0', 0.1, -0.1, '-0', '-0', 0, -0.01, -1.1, -1, -1e-38,
     -1, -1e-30, 10, 1.1, -1),
    (5, 1, 2, 0, 1, 1, 2, 1, 2, 1, 2, 12345678, 1, 9007199254740993, 0.1, 16777217, 1.5, 0.1, 0.1, 1.00001,
     1, 100, 0, 0.5, 0, 12345678901234567890.123456789, 0, 100, 1),
    (6, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

-- Times -----------------------------------------------------------------------------------------------

CREATE TABLE odd_times (
    id INT PRIMARY KEY,
    d DATE,
    dt DATETIME,
    dt3 DATETIME(3),
    dt6 DATETIME(6),
    ts TIMESTAMP NULL,
    ts3 TIMESTAMP(3) NULL,
    ts6 TIMESTAMP(6) NULL,
    t TIME,
    t3 TIME(3),
    t6 TIME(6),
    y YEAR,
    y2 YEAR(2)
);
INSERT INTO odd_times VALUES
    (1, '1000-01-01', '1000-01-01 00:00:00', '1000-01-01 00:00:00.001', '1000-01-01 00:00:00.000001',
     '1970-01-01 00:00:01', '1970-01-01 00:00:01.000', '1970-01-01 00:00:01.000001', '-838:59:59',
     '-838:59:59.999', '-838:59:59.999999', 0, 70),
    (2, '9999-12-31', '9999-12-31 23:59:59', '9999-12-31 23:59:59.999', '9999-12-31 23:59:59.999999',
     '2038-01-19 03:14:07', '2038-01-19 03:14:07.999', '2038-01-19 03:14:07.999999', '838:59:59',
     '838:59:59.999', '838:59:59.999999', 2155, 69),
    (3, '0001-01-01', '0001-01-01 00:00:00', '0001-01-01 00:00:00', '0001-01-01 00:00:00',
     '2024-02-29 12:34:56', '2024-02-29 12:34:56.789', '2024-02-29 12:34:56.789012', '24:00:00', '00:00:00.001',
     '-00:00:00.000001', 1901, 0),
    (4, '2024-02-29', '2024-02-29 12:34:56', '2024-02-29 12:34:56.789', '2024-02-29 12:34:56.789012',
     '2001-09-09 01:46:40', '2001-09-09 01:46:40.500', '2001-09-09 01:46:40.000001', '00:00:00', '-00:00:01',
     '12:34:56.789012', 2024, 24),
    (5, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

-- Dates that are none, as old applications have them.
CREATE TABLE odd_zero_dates (
    id INT PRIMARY KEY,
    d DATE,
    d_not_null DATE NOT NULL,
    dt DATETIME,
    dt6 DATETIME(6),
    ts TIMESTAMP NULL,
    ts6 TIMESTAMP(6) NULL
);
INSERT INTO odd_zero_dates VALUES
    (1, '0000-00-00', '0000-00-00', '0000-00-00 00:00:00', '0000-00-00 00:00:00.000000',
     '0000-00-00 00:00:00', '0000-00-00 00:00:00.000000'),
    (2, '2021-00-00', '2021-00-15', '2021-00-00 00:00:00', '2021-01-00 12:34:56.789012', NULL, NULL),
    (3, '0000-01-01', '0000-12-31', '0000-00-01 00:00:00', '0000-01-01 00:00:00.000001',
     '2024-01-01 00:00:00', '2024-01-01 00:00:00.000001'),
    (4, NULL, '2024-01-01', NULL, NULL, NULL, NULL);
SET sql_mode = 'ALLOW_INVALID_DATES';
INSERT INTO odd_zero_dates VALUES
    (5, '2023-02-31', '2023-04-31', '2023-02-29 00:00:00', '2023-02-30 23:59:59.999999', NULL, NULL);
SET sql_mode = '';

-- Texts and bytes -------------------------------------------------------------------------------------

CREATE TABLE odd_texts (
    id INT PRIMARY KEY,
    c CHAR(5),
    v VARCHAR(5),
    tt TINYTEXT,
    t TEXT,
    mt MEDIUMTEXT,
    lt LONGTEXT,
    latin1 VARCHAR(20) CHARACTER SET latin1,
    utf8mb3 VARCHAR(20) CHARACTER SET utf8mb3,
    utf16 VARCHAR(20) CHARACTER SET utf16,
    cp1251 VARCHAR(20) CHARACTER SET cp1251,
    sjis VARCHAR(20) CHARACTER SET sjis,
    ascii_bin VARCHAR(20) CHARACTER SET ascii COLLATE ascii_bin,
    b BINARY(5),
    vb VARBINARY(300),
    tb TINYBLOB,
    bl BLOB,
    mb MEDIUMBLOB,
    lb LONGBLOB
) CHARACTER SET utf8mb4;
INSERT INTO odd_texts VALUES
    (1, '', '', '', '', '', '', '', '', '', '', '', '', '', '', '', '', '', ''),
    (2, '  a  ', '  a  ', 'line\nfeed\r\n\ttab', 'back\\slash', 'q"uote''s', 'NULL', 'Zoë ÿ€', 'Zoë 漢字',
     '🙂 漢字', 'Привет', '表ソ能', 'ascii', 'a\0b', 'a\0\0', x'00', x'00FF', x'DEADBEEF', x'00'),
    (3, '🙂🙂🙂🙂🙂', '🙂🙂🙂🙂🙂', '👩‍👩‍👧', REPEAT('🙂', 16383), REPEAT('x', 70000),
     REPEAT('long ', 200000), 'a', 'a', 'a', 'a', 'a', 'a', x'FFFFFFFFFF', REPEAT(x'00FF', 150),
     REPEAT(x'FF', 255), REPEAT(x'00', 65535), REPEAT(x'01', 70000), REPEAT(x'FE', 1000000)),
    (4, 'NULL', 'null', '\\N', 'a\0b', '\Z', UNHEX('EFBBBF61'), ' ', ' ', ' ', ' ', ' ', ' ', ' ', 'text',
     'text', 'text', 'text', 'text'),
    (5, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL);
-- UTF-8 that an old application has put into a column of latin1: c3 b6 are two letters there.
INSERT INTO odd_texts (id, latin1) VALUES (6, x'5A6FC3AB');
-- All that latin1 can hold, with the five bytes of cp1252 that are no letter.
INSERT INTO odd_texts (id, latin1) VALUES (7, x'80818D8F909DA0FF');

-- Everything else -------------------------------------------------------------------------------------

CREATE TABLE odd_others (
    id INT PRIMARY KEY,
    bit1 BIT(1),
    bit8 BIT(8),
    bit33 BIT(33),
    bit64 BIT(64),
    e ENUM ('sad', 'ok', 'happy, "very"', '🙂'),
    s SET ('a', 'b', 'c d', 'ü'),
    j JSON,
    u UUID,
    ip4 INET4,
    ip6 INET6
);
INSERT INTO odd_others VALUES
    (1, b'1', b'11111111', b'111111111111111111111111111111111', 0xFFFFFFFFFFFFFFFF, 'sad', 'a,b,c d,ü',
     ' { "a": 1.10, "a" :2,  "b":null } ', '00000000-0000-0000-0000-000000000000', '0.0.0.0', '::'),
    (2, b'0', b'0', b'0', b'0', 'no such mood', '', 'null', 'ffffffff-ffff-ffff-ffff-ffffffffffff',
     '255.255.255.255', 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'),
    (3, b'1', b'10000000', b'100000000000000000000000000000000', 0x8000000000000000, 'happy, "very"', 'c d',
     '"🙂"', '6ccd780c-baba-1026-9564-5b8c656024db', '192.168.0.1', '2001:db8::1'),
    (4, NULL, b'1', 1, 1, '🙂', 'ü', '[]', '123e4567-e89b-42d3-a456-426614174000', NULL, '::ffff:1.2.3.4'),
    (5, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

CREATE TABLE odd_geometry (
    id INT PRIMARY KEY,
    g GEOMETRY,
    p POINT,
    l LINESTRING,
    po POLYGON,
    mp MULTIPOINT,
    gc GEOMETRYCOLLECTION,
    p4326 POINT REF_SYSTEM_ID = 4326
);
INSERT INTO odd_geometry VALUES
    (1, ST_GeomFromText('POINT(1 2)'), POINT(-0e0, 5e-324), ST_GeomFromText('LINESTRING(0 0,1 1,2 0)'),
     ST_GeomFromText('POLYGON((0 0,4 0,4 4,0 0),(1 1,2 1,2 2,1 1))'), ST_GeomFromText('MULTIPOINT(0 0,1 1)'),
     ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))'),
     ST_GeomFromText('POINT(13.4 52.5)', 4326)),
    (2, ST_GeomFromText('GEOMETRYCOLLECTION EMPTY'), NULL, NULL, NULL, NULL, NULL, NULL),
    (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

-- Columns that are not plain --------------------------------------------------------------------------

CREATE TABLE odd_columns (
    id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY,
    a INT,
    virt INT AS (a * 2) VIRTUAL,
    stored VARCHAR(20) AS (CONCAT('a', a)) STORED,
    hidden INT INVISIBLE DEFAULT 7,
    hidden_generated INT AS (a + 1) VIRTUAL INVISIBLE,
    compressed TEXT COMPRESSED,
    touched TIMESTAMP(6) NOT NULL DEFAULT '2024-01-01 00:00:00' ON UPDATE CURRENT_TIMESTAMP(6),
    `two  spaces` INT,
    `Upper` INT,
    `back``tick` INT,
    `quote"d` INT,
    `select` INT,
    `naïve` INT,
    `back\slash` INT
);
INSERT INTO odd_columns (a, hidden, compressed, `Upper`) VALUES
    (1, 1, REPEAT('compressible ', 1000), 1), (NULL, NULL, NULL, NULL), (1073741823, DEFAULT, '', 2);
INSERT INTO odd_columns (id, a) VALUES (18446744073709551614, 4);
ALTER TABLE odd_columns ADD COLUMN added VARCHAR(10) DEFAULT 'added';

-- Rows with a history: the old ones are rows of the table, too.
CREATE TABLE odd_versions (id INT PRIMARY KEY, a INT) WITH SYSTEM VERSIONING;
INSERT INTO odd_versions VALUES (1, 1), (2, NULL);
UPDATE odd_versions SET a = 2 WHERE id = 1;
DELETE FROM odd_versions WHERE id = 2;
