CREATE TABLE visits (
    id uuid NOT NULL,
    at timestamptz NOT NULL,
    page text,
    detail jsonb,
    raw json,
    price numeric(10,2),
    tags text[],
    trail uuid[],
    PRIMARY KEY (at, id)
);
INSERT INTO visits VALUES
    ('00000000-0000-4000-8000-000000000001', '2024-01-01 00:00:00+00', 'start', '{"a": 1}', '{"a":  1}', 1.50, '{x,NULL,y}', '{00000000-0000-4000-8000-000000000009}'),
    ('00000000-0000-4000-8000-000000000002', '2024-01-01 12:30:00.000001+00', NULL, NULL, NULL, NULL, NULL, NULL),
    ('00000000-0000-4000-8000-000000000003', '2024-01-02 23:59:59.999999+00', 'end', '[]', '"text"', -0.01, '{}', '{}');
CREATE TABLE colours (name varchar(20) PRIMARY KEY, red int2 NOT NULL, since date);
INSERT INTO colours VALUES ('blue', 0, '2001-02-03'), ('red', 255, NULL);
CREATE TABLE secrets (id int);
ANALYZE;
