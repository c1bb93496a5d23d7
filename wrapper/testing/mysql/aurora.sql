-- What the layer in front of a server needs to answer as an Aurora MySQL: the view that it puts in the place of
-- information_schema.replica_host_status, a schema in which nobody can create anything.

CREATE DEFINER = lab@'%' SQL SECURITY DEFINER VIEW mysql.replica_host_status AS
    SELECT server_id, IF(is_writer, 'MASTER_SESSION_ID', md5(server_id)) AS session_id, cpu,
           IF(is_writer, 0, lag_ms) AS replica_lag_in_milliseconds, FROM_UNIXTIME(updated_at) AS last_update_timestamp
      FROM JSON_TABLE(mysql.rds_lab_view(), '$.instances[*]'
                      COLUMNS (server_id VARCHAR(100) PATH '$.id', is_writer BOOLEAN PATH '$.writer', cpu DOUBLE PATH '$.cpu',
                               lag_ms DOUBLE PATH '$.lag_ms', updated_at DECIMAL(20, 6) PATH '$.updated_at')) AS instance;
