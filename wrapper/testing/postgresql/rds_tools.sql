-- The extension rds_tools as far as a Multi-AZ DB cluster is recognised by it. A single instance can have it too: there it knows no
-- source, and no members.

CREATE SCHEMA rds_tools;
GRANT USAGE ON SCHEMA rds_tools TO PUBLIC;

CREATE FUNCTION rds_tools.dbi_resource_id() RETURNS text LANGUAGE sql STABLE AS
    $$ SELECT pg_catalog.current_setting('rds_lab.resource_id') $$;

CREATE FUNCTION rds_tools.multi_az_db_cluster_source_dbi_resource_id() RETURNS text LANGUAGE sql STABLE AS
    $$ SELECT pg_catalog.rds_lab_view() ->> 'source' $$;

-- The argument is a name of the client, for RDS's own statistics.
CREATE FUNCTION rds_tools.show_topology(client text DEFAULT NULL) RETURNS TABLE (id text, endpoint text, port integer)
    LANGUAGE sql STABLE AS
    $$ SELECT t.id, t.endpoint, t.port
         FROM pg_catalog.jsonb_to_recordset(pg_catalog.rds_lab_view() -> 'topology') AS t(id text, endpoint text, port integer) $$;
