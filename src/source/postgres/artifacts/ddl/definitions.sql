-- What depends on each other: sorted by pg_depend and, where that leaves a choice, by the order of this file. Each query
-- returns the class and the oid of an object, the table that it is a part of (or 0), its name, and the SQL that creates
-- it.

--: schemas
SELECT 'pg_namespace'::regclass::oid, n.oid, 0, n.nspname,
    format('CREATE SCHEMA IF NOT EXISTS %I;', n.nspname)
FROM pg_namespace n WHERE {user}

--: extensions
SELECT 'pg_extension'::regclass::oid, e.oid, 0, e.extname,
    format('CREATE EXTENSION IF NOT EXISTS %I WITH SCHEMA %I;', e.extname, n.nspname)
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace

--: collations
SELECT 'pg_collation'::regclass::oid, o.oid, 0, format('%I.%I', n.nspname, o.collname),
    format('CREATE COLLATION %I.%I (%s);', n.nspname, o.collname, concat_ws(', ',
        CASE o.collprovider WHEN 'i' THEN 'PROVIDER = icu' WHEN 'b' THEN 'PROVIDER = builtin' ELSE 'PROVIDER = libc' END,
        CASE WHEN o.collprovider IN ('i', 'b') THEN 'LOCALE = ' || quote_literal(coalesce(
            to_jsonb(o)->>'colllocale', to_jsonb(o)->>'colliculocale', o.collcollate)) END,
        CASE WHEN o.collprovider NOT IN ('i', 'b') THEN format('LC_COLLATE = %L, LC_CTYPE = %L', o.collcollate, o.collctype) END,
        'RULES = ' || quote_literal(to_jsonb(o)->>'collicurules'),
        CASE WHEN NOT o.collisdeterministic THEN 'DETERMINISTIC = false' END))
FROM pg_collation o JOIN pg_namespace n ON n.oid = o.collnamespace WHERE {user}

--: enums
SELECT 'pg_type'::regclass::oid, t.oid, 0, format('%I.%I', n.nspname, t.typname),
    format('CREATE TYPE %I.%I AS ENUM (%s);', n.nspname, t.typname,
        (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
        FROM pg_enum e WHERE e.enumtypid = t.oid))
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype = 'e' AND {user}

--: composite types
SELECT 'pg_type'::regclass::oid, t.oid, 0, format('%I.%I', n.nspname, t.typname),
    format(E'CREATE TYPE %I.%I AS (%s);', n.nspname, t.typname,
        (SELECT string_agg(format(E'\n    %I %s%s', a.attname, format_type(a.atttypid, a.atttypmod),
            (SELECT format(' COLLATE %I.%I', m.nspname, o.collname)
            FROM pg_collation o JOIN pg_namespace m ON m.oid = o.collnamespace JOIN pg_type y ON y.oid = a.atttypid
            WHERE o.oid = a.attcollation AND o.oid <> y.typcollation)), ',' ORDER BY a.attnum)
        FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped))
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace JOIN pg_class c ON c.oid = t.typrelid
WHERE t.typtype = 'c' AND c.relkind = 'c' AND {user}

--: domains
SELECT 'pg_type'::regclass::oid, t.oid, 0, format('%I.%I', n.nspname, t.typname),
    format('CREATE DOMAIN %I.%I AS %s%s%s%s%s;', n.nspname, t.typname, format_type(t.typbasetype, t.typtypmod),
        (SELECT format(' COLLATE %I.%I', m.nspname, o.collname)
        FROM pg_collation o JOIN pg_namespace m ON m.oid = o.collnamespace JOIN pg_type y ON y.oid = t.typbasetype
        WHERE o.oid = t.typcollation AND o.oid <> y.typcollation),
        ' DEFAULT ' || coalesce(pg_get_expr(t.typdefaultbin, 'pg_type'::regclass), quote_literal(t.typdefault)),
        -- It has a name since version 17.
        CASE WHEN t.typnotnull THEN (SELECT format(' CONSTRAINT %I', k.conname) FROM pg_constraint k
            WHERE k.contypid = t.oid AND k.contype = 'n') END,
        CASE WHEN t.typnotnull THEN ' NOT NULL' END)
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype = 'd' AND {user}

--: constraints of domains
SELECT 'pg_constraint'::regclass::oid, k.oid, 0, format('%I.%I %I', n.nspname, t.typname, k.conname),
    format('ALTER DOMAIN %I.%I ADD CONSTRAINT %I %s;', n.nspname, t.typname, k.conname, pg_get_constraintdef(k.oid))
FROM pg_constraint k JOIN pg_type t ON t.oid = k.contypid JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE k.contype = 'c' AND {user}

--: ranges
SELECT 'pg_type'::regclass::oid, t.oid, 0, format('%I.%I', n.nspname, t.typname),
    format('CREATE TYPE %I.%I AS RANGE (%s);', n.nspname, t.typname, concat_ws(', ',
        'SUBTYPE = ' || format_type(r.rngsubtype, NULL),
        (SELECT format('SUBTYPE_OPCLASS = %I.%I', m.nspname, o.opcname)
        FROM pg_opclass o JOIN pg_namespace m ON m.oid = o.opcnamespace
        WHERE o.oid = r.rngsubopc AND NOT o.opcdefault),
        (SELECT format('COLLATION = %I.%I', m.nspname, o.collname)
        FROM pg_collation o JOIN pg_namespace m ON m.oid = o.collnamespace JOIN pg_type y ON y.oid = r.rngsubtype
        WHERE o.oid = r.rngcollation AND o.oid <> y.typcollation),
        CASE WHEN r.rngcanonical <> 0 THEN 'CANONICAL = ' || r.rngcanonical::text END,
        CASE WHEN r.rngsubdiff <> 0 THEN 'SUBTYPE_DIFF = ' || r.rngsubdiff::text END,
        (SELECT format('MULTIRANGE_TYPE_NAME = %I.%I', m.nspname, y.typname)
        FROM pg_type y JOIN pg_namespace m ON m.oid = y.typnamespace
        WHERE y.oid = (to_jsonb(r)->>'rngmultitypid')::oid)))
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace JOIN pg_range r ON r.rngtypid = t.oid WHERE {user}

--: functions and procedures
SELECT 'pg_proc'::regclass::oid, p.oid, 0, format('%I.%I', n.nspname, p.proname), pg_get_functiondef(p.oid) || ';'
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.prokind <> 'a'
-- The functions that make a value of a range come with its type.
AND NOT EXISTS (SELECT FROM pg_depend d
    WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'i') AND {user}

--: aggregates
SELECT 'pg_proc'::regclass::oid, p.oid, 0, format('%I.%I', n.nspname, p.proname),
    format(E'CREATE AGGREGATE %I.%I(%s) (\n    %s\n);', n.nspname, p.proname, pg_get_function_arguments(p.oid),
    concat_ws(E',\n    ',
        'SFUNC = ' || g.aggtransfn::text,
        'STYPE = ' || format_type(g.aggtranstype, NULL),
        'SSPACE = ' || nullif(g.aggtransspace, 0),
        'FINALFUNC = ' || nullif(g.aggfinalfn::oid, 0)::regproc::text,
        CASE WHEN g.aggfinalextra THEN 'FINALFUNC_EXTRA' END,
        CASE WHEN g.aggfinalfn <> 0 THEN 'FINALFUNC_MODIFY = ' ||
            CASE g.aggfinalmodify WHEN 'r' THEN 'READ_ONLY' WHEN 's' THEN 'SHAREABLE' ELSE 'READ_WRITE' END END,
        'COMBINEFUNC = ' || nullif(g.aggcombinefn::oid, 0)::regproc::text,
        'SERIALFUNC = ' || nullif(g.aggserialfn::oid, 0)::regproc::text,
        'DESERIALFUNC = ' || nullif(g.aggdeserialfn::oid, 0)::regproc::text,
        'INITCOND = ' || quote_literal(g.agginitval),
        'MSFUNC = ' || nullif(g.aggmtransfn::oid, 0)::regproc::text,
        'MINVFUNC = ' || nullif(g.aggminvtransfn::oid, 0)::regproc::text,
        'MSTYPE = ' || format_type(nullif(g.aggmtranstype, 0), NULL),
        'MSSPACE = ' || nullif(g.aggmtransspace, 0),
        'MFINALFUNC = ' || nullif(g.aggmfinalfn::oid, 0)::regproc::text,
        CASE WHEN g.aggmfinalextra THEN 'MFINALFUNC_EXTRA' END,
        CASE WHEN g.aggmfinalfn <> 0 THEN 'MFINALFUNC_MODIFY = ' ||
            CASE g.aggmfinalmodify WHEN 'r' THEN 'READ_ONLY' WHEN 's' THEN 'SHAREABLE' ELSE 'READ_WRITE' END END,
        'MINITCOND = ' || quote_literal(g.aggminitval),
        (SELECT format('SORTOP = OPERATOR(%I.%s)', m.nspname, o.oprname)
        FROM pg_operator o JOIN pg_namespace m ON m.oid = o.oprnamespace WHERE o.oid = g.aggsortop),
        CASE p.proparallel WHEN 's' THEN 'PARALLEL = SAFE' WHEN 'r' THEN 'PARALLEL = RESTRICTED' END,
        CASE WHEN g.aggkind = 'h' THEN 'HYPOTHETICAL' END))
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_aggregate g ON g.aggfnoid = p.oid WHERE {user}

--: operators
SELECT 'pg_operator'::regclass::oid, o.oid, 0, format('%I.%s', n.nspname, o.oprname),
    format('CREATE OPERATOR %I.%s (%s);', n.nspname, o.oprname, concat_ws(', ',
        'FUNCTION = ' || o.oprcode::text,
        'LEFTARG = ' || format_type(nullif(o.oprleft, 0), NULL),
        'RIGHTARG = ' || format_type(nullif(o.oprright, 0), NULL),
        (SELECT format('COMMUTATOR = OPERATOR(%I.%s)', m.nspname, x.oprname)
        FROM pg_operator x JOIN pg_namespace m ON m.oid = x.oprnamespace WHERE x.oid = o.oprcom),
        (SELECT format('NEGATOR = OPERATOR(%I.%s)', m.nspname, x.oprname)
        FROM pg_operator x JOIN pg_namespace m ON m.oid = x.oprnamespace WHERE x.oid = o.oprnegate),
        'RESTRICT = ' || nullif(o.oprrest::oid, 0)::regproc::text,
        'JOIN = ' || nullif(o.oprjoin::oid, 0)::regproc::text,
        CASE WHEN o.oprcanhash THEN 'HASHES' END,
        CASE WHEN o.oprcanmerge THEN 'MERGES' END))
FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace WHERE o.oprcode <> 0 AND {user}

--: casts
SELECT 'pg_cast'::regclass::oid, k.oid, 0, format_type(k.castsource, NULL) || ' ' || format_type(k.casttarget, NULL),
    format('CREATE CAST (%s AS %s) %s%s;', format_type(k.castsource, NULL), format_type(k.casttarget, NULL),
        CASE k.castmethod WHEN 'f' THEN 'WITH FUNCTION ' || k.castfunc::regprocedure::text
            WHEN 'i' THEN 'WITH INOUT' ELSE 'WITHOUT FUNCTION' END,
        CASE k.castcontext WHEN 'a' THEN ' AS ASSIGNMENT' WHEN 'i' THEN ' AS IMPLICIT' END)
FROM pg_cast k WHERE k.oid >= 16384
-- That of a range to its multirange comes with the type.
AND NOT EXISTS (SELECT FROM pg_depend d
    WHERE d.classid = 'pg_cast'::regclass AND d.objid = k.oid AND d.deptype = 'i')

--: text search dictionaries
SELECT 'pg_ts_dict'::regclass::oid, d.oid, 0, format('%I.%I', n.nspname, d.dictname),
    format('CREATE TEXT SEARCH DICTIONARY %I.%I (TEMPLATE = %I.%I%s);', n.nspname, d.dictname, m.nspname, t.tmplname,
        ', ' || d.dictinitoption)
FROM pg_ts_dict d JOIN pg_namespace n ON n.oid = d.dictnamespace
JOIN pg_ts_template t ON t.oid = d.dicttemplate JOIN pg_namespace m ON m.oid = t.tmplnamespace WHERE {user}

--: text search configurations
SELECT 'pg_ts_config'::regclass::oid, s.oid, 0, format('%I.%I', n.nspname, s.cfgname),
    format('CREATE TEXT SEARCH CONFIGURATION %I.%I (PARSER = %I.%I);%s', n.nspname, s.cfgname, m.nspname, p.prsname,
        (SELECT string_agg(format(E'\nALTER TEXT SEARCH CONFIGURATION %I.%I ADD MAPPING FOR %I WITH %s;',
            n.nspname, s.cfgname, k.alias, k.dictionaries), '' ORDER BY k.alias)
        FROM (SELECT y.alias, string_agg(m.mapdict::regdictionary::text, ', ' ORDER BY m.mapseqno) AS dictionaries
            FROM pg_ts_config_map m JOIN ts_token_type(s.cfgparser) y ON y.tokid = m.maptokentype
            WHERE m.mapcfg = s.oid GROUP BY y.alias) k))
FROM pg_ts_config s JOIN pg_namespace n ON n.oid = s.cfgnamespace
JOIN pg_ts_parser p ON p.oid = s.cfgparser JOIN pg_namespace m ON m.oid = p.prsnamespace WHERE {user}

--: foreign-data wrappers
SELECT 'pg_foreign_data_wrapper'::regclass::oid, w.oid, 0, w.fdwname,
    format('CREATE FOREIGN DATA WRAPPER %I%s%s%s;', w.fdwname,
        ' HANDLER ' || nullif(w.fdwhandler, 0)::regproc::text,
        ' VALIDATOR ' || nullif(w.fdwvalidator, 0)::regproc::text,
        (SELECT ' OPTIONS (' || string_agg({option}, ', ' ORDER BY o.option_name) || ')'
        FROM pg_options_to_table(w.fdwoptions) o))
FROM pg_foreign_data_wrapper w

--: foreign servers
SELECT 'pg_foreign_server'::regclass::oid, s.oid, 0, s.srvname,
    format('CREATE SERVER %I%s%s FOREIGN DATA WRAPPER %I%s;', s.srvname,
        ' TYPE ' || quote_literal(s.srvtype), ' VERSION ' || quote_literal(s.srvversion), w.fdwname,
        (SELECT ' OPTIONS (' || string_agg({option}, ', ' ORDER BY o.option_name) || ')'
        FROM pg_options_to_table(s.srvoptions) o))
FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw

--: sequences
SELECT 'pg_class'::regclass::oid, c.oid, 0, format('%I.%I', n.nspname, c.relname),
    format('CREATE %sSEQUENCE %I.%I AS %s START WITH %s INCREMENT BY %s MINVALUE %s MAXVALUE %s CACHE %s%s;',
        CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED ' END, n.nspname, c.relname, format_type(s.seqtypid, NULL),
        s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, CASE WHEN s.seqcycle THEN ' CYCLE' END)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_sequence s ON s.seqrelid = c.oid
-- That of an identity column comes with the column.
WHERE NOT EXISTS (SELECT FROM pg_depend d
    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'i') AND {user}

--: tables
SELECT 'pg_class'::regclass::oid, c.oid, 0, format('%I.%I', n.nspname, c.relname),
    format('CREATE %s%s %I.%I%s%s%s%s%s%s;',
        CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED ' END,
        CASE c.relkind WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, n.nspname, c.relname,
        CASE WHEN c.reloftype <> 0 THEN format(' OF %s', format_type(c.reloftype, NULL)) || coalesce(' (' || columns.text || E'\n)', '')
            ELSE format(E' (%s\n)', concat_ws(',', columns.text, constraints.text)) END,
        (SELECT format(' INHERITS (%s)', nullif(string_agg(format('%I.%I', m.nspname, p.relname), ', ' ORDER BY i.inhseqno), ''))
        FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace m ON m.oid = p.relnamespace
        WHERE i.inhrelid = c.oid AND NOT c.relispartition HAVING count(*) > 0),
        ' PARTITION BY ' || CASE c.relkind WHEN 'p' THEN pg_get_partkeydef(c.oid) END,
        (SELECT format(' USING %I', m.amname) FROM pg_am m WHERE m.oid = c.relam AND m.amname <> 'heap'),
        (SELECT ' WITH (' || string_agg(o.option_name || '=' || quote_literal(o.option_value), ', ') || ')'
        FROM (SELECT * FROM pg_options_to_table(c.reloptions)
            UNION ALL SELECT 'toast.' || x.option_name, x.option_value
            FROM pg_class s, pg_options_to_table(s.reloptions) x WHERE s.oid = c.reltoastrelid) o),
        (SELECT format(' SERVER %I%s', s.srvname,
            (SELECT ' OPTIONS (' || string_agg({option}, ', ' ORDER BY o.option_name) || ')'
            FROM pg_options_to_table(f.ftoptions) o))
        FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver WHERE f.ftrelid = c.oid))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
    SELECT string_agg(format(E'\n    %I %s%s%s%s%s', a.attname,
        CASE WHEN c.reloftype <> 0 THEN 'WITH OPTIONS' ELSE format_type(a.atttypid, a.atttypmod) END,
        (SELECT ' OPTIONS (' || string_agg({option}, ', ' ORDER BY o.option_name) || ')'
        FROM pg_options_to_table(a.attfdwoptions) o),
        (SELECT format(' COLLATE %I.%I', m.nspname, o.collname)
        FROM pg_collation o JOIN pg_namespace m ON m.oid = o.collnamespace JOIN pg_type y ON y.oid = a.atttypid
        WHERE o.oid = a.attcollation AND o.oid <> y.typcollation AND c.reloftype = 0),
        CASE WHEN a.attgenerated <> '' THEN
            (SELECT format(' GENERATED ALWAYS AS (%s) %s', pg_get_expr(d.adbin, d.adrelid),
                CASE a.attgenerated WHEN 's' THEN 'STORED' ELSE 'VIRTUAL' END)
            FROM pg_attrdef d WHERE d.adrelid = c.oid AND d.adnum = a.attnum)
        -- A partition has the identity of its parent.
        WHEN a.attidentity <> '' AND NOT c.relispartition THEN
            (SELECT format(' GENERATED %s AS IDENTITY (SEQUENCE NAME %I.%I START WITH %s INCREMENT BY %s MINVALUE %s MAXVALUE %s CACHE %s%s)',
                CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END, m.nspname, x.relname,
                s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, CASE WHEN s.seqcycle THEN ' CYCLE' END)
            FROM pg_depend d JOIN pg_sequence s ON s.seqrelid = d.objid JOIN pg_class x ON x.oid = d.objid
            JOIN pg_namespace m ON m.oid = x.relnamespace
            WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
            AND d.refobjid = c.oid AND d.refobjsubid = a.attnum AND d.deptype = 'i') END,
        -- It has a name since version 18; one that is not valid is added when all else is there.
        CASE WHEN NOT a.attnotnull THEN '' WHEN k.conname IS NULL THEN ' NOT NULL'
            WHEN k.convalidated THEN format(' CONSTRAINT %I NOT NULL%s', k.conname,
                CASE WHEN k.connoinherit THEN ' NO INHERIT' END) ELSE '' END
        ), ',' ORDER BY a.attnum) AS text
    FROM pg_attribute a LEFT JOIN pg_constraint k
    ON k.conrelid = c.oid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum]
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND (a.attislocal OR c.relispartition)
    AND (c.reloftype = 0 OR a.attnotnull OR a.attgenerated <> '' OR a.attidentity <> '')
) AS columns
-- Of columns that are the parent's, what a child says itself.
CROSS JOIN LATERAL (
    SELECT string_agg(format(E'\n    CONSTRAINT %I NOT NULL %I%s', k.conname, a.attname,
        CASE WHEN k.connoinherit THEN ' NO INHERIT' END), ',' ORDER BY a.attnum) AS text
    FROM pg_attribute a JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum]
    WHERE a.attrelid = c.oid AND NOT a.attisdropped AND NOT a.attislocal AND NOT c.relispartition
    AND k.conislocal AND k.convalidated
) AS constraints
WHERE c.relkind IN ('r', 'p', 'f') AND {user}

--: partitions
SELECT 0, c.oid, c.oid, format('%I.%I', n.nspname, c.relname),
    format('ALTER TABLE ONLY %I.%I ATTACH PARTITION %I.%I %s;', m.nspname, p.relname, n.nspname, c.relname,
        pg_get_expr(c.relpartbound, c.oid))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_inherits i ON i.inhrelid = c.oid
JOIN pg_class p ON p.oid = i.inhparent JOIN pg_namespace m ON m.oid = p.relnamespace
WHERE c.relispartition AND c.relkind IN ('r', 'p', 'f') AND {user}

--: defaults
SELECT 'pg_attrdef'::regclass::oid, d.oid, c.oid, format('%I.%I.%I', n.nspname, c.relname, a.attname),
    format('ALTER TABLE ONLY %I.%I ALTER COLUMN %I SET DEFAULT %s;', n.nspname, c.relname, a.attname,
        pg_get_expr(d.adbin, d.adrelid))
FROM pg_attrdef d JOIN pg_class c ON c.oid = d.adrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.adnum WHERE a.attgenerated = '' AND {user}

--: checks
SELECT 'pg_constraint'::regclass::oid, k.oid, c.oid, format('%I.%I %I', n.nspname, c.relname, k.conname),
    format('ALTER TABLE %I.%I ADD CONSTRAINT %I %s;', n.nspname, c.relname, k.conname, pg_get_constraintdef(k.oid))
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'c' AND k.conislocal AND {user}

--: keys
SELECT 'pg_constraint'::regclass::oid, k.oid, c.oid, format('%I.%I %I', n.nspname, c.relname, k.conname),
    format('ALTER TABLE ONLY %I.%I ADD CONSTRAINT %I %s;', n.nspname, c.relname, k.conname, pg_get_constraintdef(k.oid))
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype IN ('p', 'u', 'x') AND {user}

--: views
SELECT 'pg_class'::regclass::oid, c.oid, 0, format('%I.%I', n.nspname, c.relname),
    format(E'CREATE VIEW %I.%I%s AS\n%s', n.nspname, c.relname,
        (SELECT ' WITH (' || string_agg(o.option_name || '=' || quote_literal(o.option_value), ', ') || ')'
        FROM pg_options_to_table(c.reloptions) o),
        pg_get_viewdef(c.oid))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'v' AND {user}

--: materialized views
SELECT 'pg_class'::regclass::oid, c.oid, 0, format('%I.%I', n.nspname, c.relname),
    format(E'CREATE MATERIALIZED VIEW %I.%I%s%s AS\n%s\nWITH NO DATA;', n.nspname, c.relname,
        (SELECT format(' USING %I', m.amname) FROM pg_am m WHERE m.oid = c.relam AND m.amname <> 'heap'),
        (SELECT ' WITH (' || string_agg(o.option_name || '=' || quote_literal(o.option_value), ', ') || ')'
        FROM pg_options_to_table(c.reloptions) o),
        rtrim(pg_get_viewdef(c.oid), ';'))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'm' AND {user}

--: indexes
SELECT 'pg_class'::regclass::oid, x.oid, c.oid, format('%I.%I', n.nspname, x.relname), pg_get_indexdef(x.oid) || ';'
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
JOIN pg_namespace n ON n.oid = x.relnamespace
WHERE (i.indisvalid OR x.relkind = 'I') AND c.relkind <> 't' AND NOT EXISTS (SELECT FROM pg_constraint k
    WHERE k.conindid = x.oid AND k.contype IN ('p', 'u', 'x')) AND {user}
