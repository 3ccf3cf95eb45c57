-- Database shop of PostgreSQL 15.18 (Debian 15.18-0+deb12u1), without rows.
-- Made by moveout 0.1.0, by pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1).
-- To load it: roles.sql first, then this into an empty database: psql -v ON_ERROR_STOP=1 -d NAME -f FILE
-- Not in it: values of sequences (sequences.json), options of user mappings and others that are secret
-- ("(left out)"), subscriptions (subscriptions.json), tablespaces (tables.json).

--
-- PostgreSQL database dump
--

\restrict 44d3j7CtnxiDRFYS0meuZjBLn94Lb5k4r4iLB5NmrLHejqQrOPXjeUowRMn7V13

-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

SET default_table_access_method = heap;

--
-- Name: colours; Type: TABLE; Schema: public; Owner: admin
--

CREATE TABLE public.colours (
    name character varying(20) NOT NULL,
    red smallint NOT NULL,
    since date
);


ALTER TABLE public.colours OWNER TO admin;

--
-- Name: visits; Type: TABLE; Schema: public; Owner: admin
--

CREATE TABLE public.visits (
    id uuid NOT NULL,
    at timestamp with time zone NOT NULL,
    page text,
    detail jsonb,
    raw json,
    price numeric(10,2),
    tags text[],
    trail uuid[]
);


ALTER TABLE public.visits OWNER TO admin;

--
-- Name: colours colours_pkey; Type: CONSTRAINT; Schema: public; Owner: admin
--

ALTER TABLE ONLY public.colours
    ADD CONSTRAINT colours_pkey PRIMARY KEY (name);


--
-- Name: visits visits_pkey; Type: CONSTRAINT; Schema: public; Owner: admin
--

ALTER TABLE ONLY public.visits
    ADD CONSTRAINT visits_pkey PRIMARY KEY (at, id);


--
-- Name: TABLE colours; Type: ACL; Schema: public; Owner: admin
--

GRANT SELECT ON TABLE public.colours TO reader;


--
-- Name: TABLE visits; Type: ACL; Schema: public; Owner: admin
--

GRANT SELECT ON TABLE public.visits TO reader;


--
-- PostgreSQL database dump complete
--

\unrestrict 44d3j7CtnxiDRFYS0meuZjBLn94Lb5k4r4iLB5NmrLHejqQrOPXjeUowRMn7V13

