-- What the layer in front of a server needs to answer as an Aurora MySQL: the view that it puts in the place of
-- information_schema.replica_host_status, a schema in which nobody can create anything.

CREATE DEFINER = lab@'%' SQL SECURITY DEFINER VIEW mysql.replica_host_status AS
    SELECT server_id, IF(is_writer, 'MASTER_SESSION_ID', md5(server_id)) AS session_id, cpu,
           IF(is_writer, 0, lag_ms) AS replica_lag_in_milliseconds, FROM_UNIXTIME(updated_at) AS last_update_timestamp
      FROM JSON_TABLE(mysql.rds_lab_view(), '$.instances[*]'
                      COLUMNS (server_id VARCHAR(100) PATH '$.id', is_writer BOOLEAN PATH '$.writer', cpu DOUBLE PATH '$.cpu',
                               lag_ms DOUBLE PATH '$.lag_ms', updated_at DECIMAL(20, 6) PATH '$.updated_at')) AS instance;

-- Those of a Global Database, empty for any other Aurora; and the list of tables that has them.
CREATE DEFINER = lab@'%' SQL SECURITY DEFINER VIEW mysql.aurora_global_db_status AS
    SELECT aws_region, 0 AS highest_lsn_written, 0 AS durability_lag_in_milliseconds, 0 AS rpo_lag_in_milliseconds
      FROM JSON_TABLE(mysql.rds_lab_view(), '$.regions[*]' COLUMNS (aws_region VARCHAR(100) PATH '$')) AS region;

CREATE DEFINER = lab@'%' SQL SECURITY DEFINER VIEW mysql.aurora_global_db_instance_status AS
    SELECT server_id, IF(is_writer, 'MASTER_SESSION_ID', md5(server_id)) AS session_id, aws_region,
           IF(is_writer, NULL, lag_ms) AS visibility_lag_in_msec
      FROM JSON_TABLE(mysql.rds_lab_view(), '$.global_instances[*]'
                      COLUMNS (server_id VARCHAR(100) PATH '$.id', is_writer BOOLEAN PATH '$.writer',
                               aws_region VARCHAR(100) PATH '$.region', lag_ms DOUBLE PATH '$.lag_ms')) AS instance;

CREATE DEFINER = lab@'%' SQL SECURITY INVOKER VIEW mysql.aurora_lab_tables AS
    SELECT table_schema, table_name FROM information_schema.tables
     UNION ALL SELECT 'information_schema', 'AURORA_GLOBAL_DB_STATUS'
     UNION ALL SELECT 'information_schema', 'AURORA_GLOBAL_DB_INSTANCE_STATUS'
     UNION ALL SELECT 'information_schema', 'REPLICA_HOST_STATUS';
