-- What is added after everything that it may need, in the order of this file. Each query returns the class and the oid
-- of an object, the table that it is a part of (or 0), its name, and the SQL.

--: columns that do not allow null where the parent's do
SELECT 'pg_class'::regclass::oid, c.oid, c.oid, format('%I.%I.%I', n.nspname, c.relname, a.attname),
    format('ALTER TABLE ONLY %I.%I ALTER COLUMN %I SET NOT NULL;', n.nspname, c.relname, a.attname)
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull AND NOT a.attislocal AND NOT c.relispartition
AND c.relkind IN ('r', 'p', 'f') AND {user}
-- Where they have names, they are made with the table, or below.
AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum])

--: columns that do not allow null from now on
SELECT 'pg_constraint'::regclass::oid, k.oid, c.oid, format('%I.%I %I', n.nspname, c.relname, k.conname),
    format('ALTER TABLE %I.%I ADD CONSTRAINT %I %s;', n.nspname, c.relname, k.conname, pg_get_constraintdef(k.oid))
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'n' AND NOT k.convalidated AND k.conislocal AND {user}

--: storage of columns
SELECT 'pg_class'::regclass::oid, c.oid, c.oid, format('%I.%I.%I', n.nspname, c.relname, a.attname),
    format('ALTER TABLE ONLY %I.%I ALTER COLUMN %I SET %s;', n.nspname, c.relname, a.attname, changed)
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_type t ON t.oid = a.atttypid
CROSS JOIN LATERAL (VALUES
    (CASE WHEN a.attstorage <> t.typstorage THEN 'STORAGE ' || CASE a.attstorage
        WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END END),
    ('COMPRESSION ' || CASE to_jsonb(a)->>'attcompression' WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END),
    (CASE WHEN a.attstattarget >= 0 THEN 'STATISTICS ' || a.attstattarget END),
    ((SELECT '(' || string_agg(o.option_name || '=' || quote_literal(o.option_value), ', ') || ')'
        FROM pg_options_to_table(a.attoptions) o))) AS changes (changed)
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'm') AND changed IS NOT NULL AND {user}

--: indexes of partitions
SELECT 'pg_class'::regclass::oid, x.oid, i.indrelid, format('%I.%I', n.nspname, x.relname),
    format('ALTER INDEX %I.%I ATTACH PARTITION %I.%I;', m.nspname, p.relname, n.nspname, x.relname)
FROM pg_inherits h JOIN pg_class x ON x.oid = h.inhrelid JOIN pg_index i ON i.indexrelid = x.oid
JOIN pg_class p ON p.oid = h.inhparent JOIN pg_namespace n ON n.oid = x.relnamespace
JOIN pg_namespace m ON m.oid = p.relnamespace WHERE p.relkind = 'I' AND {user}

--: replica identity and clustering
SELECT 'pg_class'::regclass::oid, c.oid, c.oid, format('%I.%I', n.nspname, c.relname),
    format('ALTER TABLE ONLY %I.%I %s;', n.nspname, c.relname, changed)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
    SELECT CASE c.relreplident WHEN 'f' THEN 'REPLICA IDENTITY FULL' WHEN 'n' THEN 'REPLICA IDENTITY NOTHING' END
    UNION ALL SELECT format('REPLICA IDENTITY USING INDEX %I', x.relname)
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = c.oid AND i.indisreplident
    UNION ALL SELECT format('CLUSTER ON %I', x.relname)
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid WHERE i.indrelid = c.oid AND i.indisclustered
) AS changes (changed)
WHERE c.relkind IN ('r', 'p', 'm') AND changed IS NOT NULL AND {user}

--: foreign keys
SELECT 'pg_constraint'::regclass::oid, k.oid, c.oid, format('%I.%I %I', n.nspname, c.relname, k.conname),
    format('ALTER TABLE %I.%I ADD CONSTRAINT %I %s;', n.nspname, c.relname, k.conname, pg_get_constraintdef(k.oid))
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0 AND {user}

--: triggers
SELECT 'pg_trigger'::regclass::oid, t.oid, c.oid, format('%I.%I %I', n.nspname, c.relname, t.tgname),
    format('%s;%s', pg_get_triggerdef(t.oid), CASE WHEN t.tgenabled <> 'O' THEN
        format(E'\nALTER TABLE %I.%I %s TRIGGER %I;', n.nspname, c.relname,
            CASE t.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END, t.tgname) END)
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND coalesce(to_jsonb(t)->>'tgparentid', '0') = '0' AND {user}

--: rules
SELECT 'pg_rewrite'::regclass::oid, r.oid, c.oid, format('%I.%I %I', n.nspname, c.relname, r.rulename),
    format('%s%s', pg_get_ruledef(r.oid), CASE WHEN r.ev_enabled <> 'O' THEN
        format(E'\nALTER TABLE %I.%I %s RULE %I;', n.nspname, c.relname,
            CASE r.ev_enabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END, r.rulename) END)
FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE r.rulename <> '_RETURN' AND {user}

--: extended statistics
SELECT 'pg_statistic_ext'::regclass::oid, s.oid, s.stxrelid, format('%I.%I', n.nspname, s.stxname),
    concat(pg_get_statisticsobjdef(s.oid), ';', (SELECT format(E'\nALTER STATISTICS %I.%I SET STATISTICS %s;',
        n.nspname, s.stxname, target) FROM (SELECT (to_jsonb(s)->>'stxstattarget')::int) AS t (target) WHERE target >= 0))
FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE {user}

--: owned sequences
SELECT 'pg_class'::regclass::oid, s.oid, c.oid, format('%I.%I', n.nspname, s.relname),
    format('ALTER SEQUENCE %I.%I OWNED BY %I.%I.%I;', n.nspname, s.relname, m.nspname, c.relname, a.attname)
FROM pg_depend d JOIN pg_class s ON s.oid = d.objid JOIN pg_namespace n ON n.oid = s.relnamespace
JOIN pg_class c ON c.oid = d.refobjid JOIN pg_namespace m ON m.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'a'
AND s.relkind = 'S' AND {user}

--: publications
SELECT 'pg_publication'::regclass::oid, p.oid, 0, p.pubname,
    format('CREATE PUBLICATION %I%s WITH (publish = %L%s);', p.pubname,
        CASE WHEN p.puballtables THEN ' FOR ALL TABLES' END,
        concat_ws(', ', CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubupdate THEN 'update' END,
            CASE WHEN p.pubdelete THEN 'delete' END, CASE WHEN p.pubtruncate THEN 'truncate' END),
        concat(CASE WHEN to_jsonb(p)->>'pubviaroot' = 'true' THEN ', publish_via_partition_root = true' END,
            CASE WHEN to_jsonb(p)->>'pubgencols' = 's' THEN ', publish_generated_columns = stored' END))
FROM pg_publication p

--: tables of publications
SELECT 'pg_publication'::regclass::oid, p.oid, c.oid, format('%I %I.%I', p.pubname, n.nspname, c.relname),
    format('ALTER PUBLICATION %I ADD TABLE ONLY %I.%I%s%s;', p.pubname, n.nspname, c.relname, {publication_filter})
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {user}

--: schemas of publications, since 15
SELECT 'pg_publication'::regclass::oid, p.oid, 0, format('%I %I', p.pubname, n.nspname),
    format('ALTER PUBLICATION %I ADD TABLES IN SCHEMA %I;', p.pubname, n.nspname)
FROM pg_publication_namespace r JOIN pg_publication p ON p.oid = r.pnpubid JOIN pg_namespace n ON n.oid = r.pnnspid

--: comments
SELECT d.classoid, d.objoid, CASE WHEN d.classoid = 'pg_class'::regclass THEN d.objoid ELSE 0 END, o.type || o.identity,
    format('COMMENT ON %s %s IS %L;', CASE
        WHEN o.type LIKE '% column' THEN 'COLUMN'
        WHEN o.type IN ('table constraint', 'domain constraint') THEN 'CONSTRAINT'
        WHEN o.type = 'composite type' THEN 'TYPE'
        WHEN o.type = 'foreign-data wrapper' THEN 'FOREIGN DATA WRAPPER'
        WHEN o.type = 'statistics object' THEN 'STATISTICS'
        ELSE upper(o.type) END,
        CASE o.type WHEN 'domain constraint' THEN replace(o.identity, ' on ', ' ON DOMAIN ') ELSE o.identity END,
        d.description)
FROM pg_description d CROSS JOIN LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) o
WHERE d.objoid >= 16384 AND o.identity IS NOT NULL
AND o.type NOT IN ('extension', 'large object', 'subscription')

--: policies
SELECT 'pg_policy'::regclass::oid, p.oid, c.oid, format('%I.%I %I', n.nspname, c.relname, p.polname),
    format('CREATE POLICY %I ON %I.%I AS %s FOR %s TO %s%s%s;', p.polname, n.nspname, c.relname,
        CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
        CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
        (SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ') FROM unnest(p.polroles) r),
        CASE WHEN p.polqual IS NOT NULL THEN format(' USING (%s)', pg_get_expr(p.polqual, p.polrelid)) END,
        CASE WHEN p.polwithcheck IS NOT NULL THEN format(' WITH CHECK (%s)', pg_get_expr(p.polwithcheck, p.polrelid)) END)
FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {user}

--: row-level security
SELECT 'pg_class'::regclass::oid, c.oid, c.oid, format('%I.%I', n.nspname, c.relname),
    format('ALTER TABLE ONLY %I.%I %s ROW LEVEL SECURITY;', n.nspname, c.relname, changed)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (VALUES (CASE WHEN c.relrowsecurity THEN 'ENABLE' END),
    (CASE WHEN c.relforcerowsecurity THEN 'FORCE' END)) AS changes (changed)
WHERE changed IS NOT NULL AND {user}

--: owners
SELECT class, oid, 0, identity, format('ALTER %s %s OWNER TO %I;', kind, identity, pg_get_userbyid(owner))
FROM (
    SELECT 'pg_namespace'::regclass::oid, n.oid, 'SCHEMA', quote_ident(n.nspname), n.nspowner
    FROM pg_namespace n WHERE {user}
    UNION ALL SELECT 'pg_class'::regclass, c.oid,
        CASE c.relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
            WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, format('%I.%I', n.nspname, c.relname), c.relowner
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {user}
    -- Of a column, it has the owner of the table.
    AND NOT (c.relkind = 'S' AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
        AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')))
    UNION ALL SELECT 'pg_proc'::regclass, p.oid, 'ROUTINE', i.identity, p.proowner
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    CROSS JOIN LATERAL pg_identify_object('pg_proc'::regclass, p.oid, 0) i
    WHERE NOT EXISTS (SELECT FROM pg_depend d
        WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'i') AND {user}
    UNION ALL SELECT 'pg_type'::regclass, t.oid, CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END,
        format('%I.%I', n.nspname, t.typname), t.typowner
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
    WHERE (t.typtype IN ('e', 'd', 'r') OR c.relkind = 'c') AND {user}
    UNION ALL SELECT 'pg_foreign_server'::regclass, s.oid, 'SERVER', quote_ident(s.srvname), s.srvowner
    FROM pg_foreign_server s
    UNION ALL SELECT 'pg_publication'::regclass, p.oid, 'PUBLICATION', quote_ident(p.pubname), p.pubowner
    FROM pg_publication p
) AS owned (class, oid, kind, identity, owner)
WHERE pg_get_userbyid(owner) <> 'pg_database_owner'

--: rights that everybody has until somebody decides
SELECT class, oid, 0, what, format('REVOKE ALL ON %s FROM PUBLIC;', what)
FROM (
    SELECT 'pg_namespace'::regclass::oid, n.oid, format('SCHEMA %I', n.nspname)
    FROM pg_namespace n WHERE n.nspacl IS NOT NULL AND {user}
    UNION ALL SELECT 'pg_proc'::regclass, p.oid, 'ROUTINE ' || i.identity
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    CROSS JOIN LATERAL pg_identify_object('pg_proc'::regclass, p.oid, 0) i WHERE p.proacl IS NOT NULL AND {user}
    UNION ALL SELECT 'pg_type'::regclass, t.oid, format('TYPE %I.%I', n.nspname, t.typname)
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typacl IS NOT NULL AND {user}
) AS objects (class, oid, what)

--: grants
SELECT class, oid, 0, format('%s %s', what, grantee), format('GRANT %s ON %s TO %s%s;', rights, what,
    CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
    CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END)
FROM (
    SELECT class, oid, what, e.grantee, e.is_grantable,
        string_agg(e.privilege_type || columns, ', ' ORDER BY e.privilege_type) AS rights
    FROM (
        SELECT 'pg_class'::regclass::oid, c.oid, format('%s %I.%I', CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
            n.nspname, c.relname), '', c.relacl, c.relowner
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {user}
        UNION ALL SELECT 'pg_class'::regclass, c.oid, format('TABLE %I.%I', n.nspname, c.relname),
            format(' (%I)', a.attname), a.attacl, c.relowner
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE NOT a.attisdropped AND {user}
        UNION ALL SELECT 'pg_namespace'::regclass, n.oid, format('SCHEMA %I', n.nspname), '', n.nspacl, n.nspowner
        FROM pg_namespace n WHERE {user}
        UNION ALL SELECT 'pg_proc'::regclass, p.oid, 'ROUTINE ' || i.identity, '', p.proacl, p.proowner
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        CROSS JOIN LATERAL pg_identify_object('pg_proc'::regclass, p.oid, 0) i WHERE p.proacl IS NOT NULL AND {user}
        UNION ALL SELECT 'pg_type'::regclass, t.oid, format('TYPE %I.%I', n.nspname, t.typname), '', t.typacl, t.typowner
        FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE {user}
        UNION ALL SELECT 'pg_foreign_server'::regclass, s.oid, format('FOREIGN SERVER %I', s.srvname), '', s.srvacl, s.srvowner
        FROM pg_foreign_server s
        UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, w.oid, format('FOREIGN DATA WRAPPER %I', w.fdwname), '',
            w.fdwacl, w.fdwowner
        FROM pg_foreign_data_wrapper w
    ) AS objects (class, oid, what, columns, acl, owner) CROSS JOIN LATERAL aclexplode(acl) e
    WHERE e.grantee <> owner GROUP BY class, oid, what, e.grantee, e.is_grantable
) AS grants

--: default rights
SELECT 'pg_default_acl'::regclass::oid, d.oid, 0, format('%s %s %s', d.oid, e.grantee, e.privilege_type),
    format('ALTER DEFAULT PRIVILEGES FOR ROLE %I%s GRANT %s ON %s TO %s%s;', pg_get_userbyid(d.defaclrole),
        ' IN SCHEMA ' || quote_ident(n.nspname), e.privilege_type,
        CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS'
            WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END,
        CASE e.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(e.grantee)) END,
        CASE WHEN e.is_grantable THEN ' WITH GRANT OPTION' END)
FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
CROSS JOIN LATERAL aclexplode(d.defaclacl) e

--: event triggers
SELECT 'pg_event_trigger'::regclass::oid, e.oid, 0, e.evtname,
    format('CREATE EVENT TRIGGER %I ON %s%s EXECUTE FUNCTION %s();%s', e.evtname, e.evtevent,
        (SELECT ' WHEN TAG IN (' || string_agg(quote_literal(t), ', ') || ')' FROM unnest(e.evttags) t),
        e.evtfoid::regproc::text, CASE WHEN e.evtenabled <> 'O' THEN format(E'\nALTER EVENT TRIGGER %I %s;', e.evtname,
            CASE e.evtenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END) END)
FROM pg_event_trigger e
