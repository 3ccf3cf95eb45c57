-- Databases, empty: what is in each is in ddl/. Load roles.sql first.

SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;

CREATE DATABASE shop WITH TEMPLATE = template0 OWNER = admin ENCODING = 'UTF8' LC_COLLATE = 'C.UTF-8' LC_CTYPE = 'C.UTF-8' LOCALE_PROVIDER = libc;

COMMENT ON DATABASE postgres IS 'default administrative connection database';




