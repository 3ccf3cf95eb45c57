CREATE DATABASE shop;
USE shop;
CREATE TABLE orders (
    at datetime(6) NOT NULL,
    id int unsigned NOT NULL,
    reference uuid,
    detail json,
    price decimal(10,2),
    note varchar(50),
    PRIMARY KEY (at, id)
);
INSERT INTO orders VALUES
    ('2024-01-01 00:00:00', 1, '00000000-0000-4000-8000-000000000001', '{"a": 1}', 1.50, 'first'),
    ('2024-01-01 12:30:00.000001', 2, NULL, NULL, NULL, NULL),
    ('2024-01-02 23:59:59.999999', 3, NULL, '[]', -0.01, '');
CREATE TABLE colours (name varchar(20) PRIMARY KEY, red smallint NOT NULL, since date);
INSERT INTO colours VALUES ('blue', 0, '2001-02-03'), ('red', 255, NULL);
ANALYZE TABLE orders, colours;
