-- What makes a PostgreSQL server look like one of RDS's to SQL. Installed into template1, so every database has it.
-- The facts come from a JSON file per instance, which the lab's controller replaces: a view of the cluster can be changed at once,
-- on a read-only standby too, and can be stale on one instance alone.

SET allow_system_table_mods = on;

-- A placeholder setting given on the command line is hidden from pg_settings; RDS shows rds.extensions there.
CREATE OR REPLACE VIEW pg_catalog.pg_settings AS
    SELECT * FROM pg_catalog.pg_show_all_settings()
    UNION ALL
    SELECT 'rds.extensions', pg_catalog.current_setting('rds.extensions', true), NULL, 'Customized Options', NULL, NULL, 'postmaster',
           'string', 'command line', NULL, NULL, NULL, NULL, pg_catalog.current_setting('rds.extensions', true), NULL, NULL, false;

-- SECURITY DEFINER: pg_read_file wants a right that applications do not have. They cannot choose the file.
CREATE FUNCTION pg_catalog.rds_lab_view() RETURNS jsonb LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
    $$ SELECT pg_read_file(current_setting('data_directory') || '/../view.json')::jsonb $$;
