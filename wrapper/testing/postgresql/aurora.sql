-- What makes a PostgreSQL server of RDS's an Aurora instance to SQL.

CREATE FUNCTION pg_catalog.aurora_db_instance_identifier() RETURNS text LANGUAGE sql STABLE AS
    $$ SELECT pg_catalog.current_setting('rds_lab.instance_id') $$;

CREATE FUNCTION pg_catalog.aurora_version() RETURNS text LANGUAGE sql STABLE AS $$ SELECT '15.4' $$;

CREATE FUNCTION pg_catalog.aurora_replica_status()
    RETURNS TABLE (server_id text, session_id text, durable_lsn bigint, highest_lsn_rcvd bigint, current_read_lsn bigint,
                   cur_replay_latency_in_usec bigint, active_txns bigint, is_current boolean, last_transport_error integer,
                   last_error_timestamp timestamptz, last_update_timestamp timestamptz, feedback_xmin xid, feedback_epoch integer,
                   replica_lag_in_msec double precision, log_stream_speed_in_kib_per_second double precision,
                   log_buffer_sequence_number bigint, oldest_read_view_trx_id bigint, oldest_read_view_lsn bigint,
                   pending_read_ios bigint, read_ios bigint, iops integer, cpu double precision)
    LANGUAGE sql STABLE AS
    $$ SELECT i.id, CASE WHEN i.writer THEN 'MASTER_SESSION_ID' ELSE pg_catalog.md5(i.id) END,
              0, 0, 0, 0, 0, true, 0, NULL::timestamptz, pg_catalog.to_timestamp(i.updated_at), NULL::xid, 0,
              CASE WHEN i.writer THEN NULL ELSE i.lag_ms END, 0, 0, 0, 0, 0, 0, 0, i.cpu
         FROM pg_catalog.jsonb_to_recordset(pg_catalog.rds_lab_view() -> 'instances')
              AS i(id text, writer boolean, lag_ms double precision, cpu double precision, updated_at double precision) $$;

-- Every Aurora has these two; a Global Database alone has rows in them.
CREATE FUNCTION pg_catalog.aurora_global_db_status()
    RETURNS TABLE (aws_region text, highest_lsn_written bigint, durability_lag_in_msec double precision,
                   rpo_lag_in_msec double precision, last_lag_calculation_time timestamptz, feedback_epoch integer, feedback_xmin xid)
    LANGUAGE sql STABLE AS
    $$ SELECT r.value, 0, 0, 0, pg_catalog.now(), 0, NULL::xid
         FROM pg_catalog.jsonb_array_elements_text(pg_catalog.rds_lab_view() -> 'regions') AS r(value) $$;

CREATE FUNCTION pg_catalog.aurora_global_db_instance_status()
    RETURNS TABLE (server_id text, session_id text, aws_region text, durable_lsn bigint, highest_lsn_rcvd bigint,
                   feedback_epoch integer, feedback_xmin xid, oldest_read_view_lsn bigint, visibility_lag_in_msec double precision)
    LANGUAGE sql STABLE AS
    $$ SELECT i.id, CASE WHEN i.writer THEN 'MASTER_SESSION_ID' ELSE pg_catalog.md5(i.id) END, i.region, 0, 0, 0, NULL::xid, 0,
              CASE WHEN i.writer THEN NULL ELSE i.lag_ms END
         FROM pg_catalog.jsonb_to_recordset(pg_catalog.rds_lab_view() -> 'global_instances')
              AS i(id text, region text, writer boolean, lag_ms double precision) $$;
