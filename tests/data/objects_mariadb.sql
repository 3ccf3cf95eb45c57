-- Every kind of object of MariaDB beside plain tables: what must be taken in another way, noted down or
-- named as left out. Loads into an empty database by the mariadb client as an administrator, once a
-- server: it makes more databases and users.

SET time_zone = '+00:00';
SET NAMES utf8mb4;

-- Partitions.
CREATE TABLE events (at DATETIME(6) NOT NULL, kind VARCHAR(10), value DOUBLE, KEY (at))
    PARTITION BY RANGE COLUMNS (at) (
        PARTITION p2023 VALUES LESS THAN ('2024-01-01'),
        PARTITION p2024 VALUES LESS THAN ('2025-01-01'),
        PARTITION p_rest VALUES LESS THAN (MAXVALUE));
INSERT INTO events VALUES
    ('2023-06-01', 'a', 1), ('2024-06-01', 'a', 2), ('2024-06-02', 'b', 3), ('2030-01-01', 'a', 4),
    ('9999-12-31 23:59:59.999999', 'b', 5), ('1000-01-01', NULL, NULL);
CREATE TABLE by_list_and_hash (id INT, at TIMESTAMP NULL)
    PARTITION BY LIST (id) SUBPARTITION BY HASH (id) SUBPARTITIONS 2 (
        PARTITION one VALUES IN (1, NULL), PARTITION two VALUES IN (2));
INSERT INTO by_list_and_hash VALUES (1, '2024-01-01'), (2, NULL), (NULL, NULL);

-- Other engines: no snapshot covers these.
CREATE TABLE in_myisam (id INT PRIMARY KEY, note TEXT) ENGINE = MyISAM;
INSERT INTO in_myisam VALUES (1, 'one'), (2, NULL);
CREATE TABLE in_aria (id INT PRIMARY KEY, note TEXT) ENGINE = Aria;
INSERT INTO in_aria VALUES (1, 'one');
CREATE TABLE in_memory (id INT PRIMARY KEY, note VARCHAR(10)) ENGINE = MEMORY;
INSERT INTO in_memory VALUES (1, 'one');
CREATE TABLE in_csv (id INT NOT NULL, note VARCHAR(10) NOT NULL) ENGINE = CSV;
INSERT INTO in_csv VALUES (1, 'one');

-- Keys and time.
CREATE TABLE empty (id INT PRIMARY KEY, at DATETIME);
CREATE TABLE no_key (a INT, b TEXT);
INSERT INTO no_key VALUES (1, 'x'), (1, 'x'), (NULL, NULL), (NULL, NULL);
CREATE TABLE composite_key (a INT, b VARCHAR(10), c INT, PRIMARY KEY (a, b));
INSERT INTO composite_key VALUES (1, 'a', 1), (1, 'b', 2), (2, 'a', 3);
CREATE TABLE text_key (name VARCHAR(20) COLLATE utf8mb4_unicode_ci PRIMARY KEY, value INT);
INSERT INTO text_key VALUES ('a', 1), ('B', 2), ('ä b', 3), ('🙂', 4);
CREATE TABLE by_index (id BIGINT AUTO_INCREMENT PRIMARY KEY, at TIMESTAMP(6) NULL, value DOUBLE, KEY (at));
INSERT INTO by_index (at, value)
    SELECT TIMESTAMP('2024-01-01') + INTERVAL seq HOUR, seq FROM seq_0_to_999;
INSERT INTO by_index (at, value) VALUES (NULL, 1);
CREATE TABLE by_nothing AS SELECT * FROM by_index;
CREATE TABLE with_references (
    id INT PRIMARY KEY,
    other INT COMMENT 'a comment with ''quotes''',
    CONSTRAINT of_other FOREIGN KEY (other) REFERENCES with_references (id) ON DELETE CASCADE,
    CHECK (other < 100),
    FULLTEXT KEY (note),
    note TEXT
) COMMENT = 'a table''s comment';
INSERT INTO with_references VALUES (1, NULL, 'x'), (2, 1, NULL);

-- Names.
CREATE TABLE `Weird ``Name"` (`Weird ``Column"` INT, `select` TEXT);
INSERT INTO `Weird ``Name"` VALUES (1, 'x');
CREATE TABLE MixedCase (Id INT);
INSERT INTO MixedCase VALUES (1);
CREATE TABLE mixedcase (id INT);
INSERT INTO mixedcase VALUES (2);
CREATE TABLE `select` (`from` INT);
INSERT INTO `select` VALUES (1);
CREATE TABLE `a/b` (id INT);
INSERT INTO `a/b` VALUES (1);
CREATE TABLE `..` (id INT);
INSERT INTO `..` VALUES (1);
CREATE TABLE `naïve 100%` (id INT);
INSERT INTO `naïve 100%` VALUES (1);
CREATE TABLE `with.dot` (id INT);
INSERT INTO `with.dot` VALUES (1);

-- Views, one of which has lost its table.
CREATE VIEW plain_view AS SELECT kind, COUNT(*) AS n FROM events GROUP BY kind;
CREATE TABLE vanishing (id INT);
CREATE VIEW broken_view AS SELECT id FROM vanishing;
DROP TABLE vanishing;

-- Sequences, which SHOW TABLES lists.
CREATE SEQUENCE counter START WITH 41 INCREMENT BY 2;
DO NEXTVAL(counter);

-- Triggers, routines, events.
DELIMITER //
CREATE TRIGGER touch BEFORE INSERT ON no_key FOR EACH ROW
BEGIN
    SET NEW.b = CONCAT(NEW.b, ';'); -- with a ; and a 'quote'
END//
CREATE FUNCTION twice (a INT) RETURNS INT DETERMINISTIC RETURN a * 2//
CREATE PROCEDURE fill (IN n INT, OUT done INT)
BEGIN
    DECLARE i INT DEFAULT 0;
    WHILE i < n DO
        INSERT INTO empty VALUES (i, NULL);
        SET i = i + 1;
    END WHILE;
    SET done = i;
END//
CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' DISABLE
    DO DELETE FROM empty WHERE at < '2020-01-01'//
SET sql_mode = 'ORACLE'//
CREATE PACKAGE tools AS
    FUNCTION answer RETURN INT;
END//
CREATE PACKAGE BODY tools AS
    FUNCTION answer RETURN INT AS BEGIN RETURN 42; END;
END//
SET sql_mode = DEFAULT//
DELIMITER ;

-- A user who may read some tables, and one column of another; and a role.
CREATE USER limited@'127.0.0.1' IDENTIFIED BY 'limited secret';
GRANT SELECT ON by_index TO limited@'127.0.0.1';
GRANT SELECT, INSERT ON empty TO limited@'127.0.0.1';
GRANT SELECT (a) ON no_key TO limited@'127.0.0.1';
CREATE ROLE the_group;
GRANT the_group TO limited@'127.0.0.1';

-- More databases: one of another character set, and an empty one.
CREATE DATABASE `Second ``Database"` CHARACTER SET latin1 COLLATE latin1_german1_ci;
USE `Second ``Database"`;
CREATE TABLE of_second (id INT, name VARCHAR(10));
INSERT INTO of_second VALUES (1, 'Zoë');
CREATE TABLE events (id INT, same_name TEXT);
INSERT INTO events VALUES (1, 'as in the first');
CREATE DATABASE nothing_in_it;
