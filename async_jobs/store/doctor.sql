-- What a check-up looks at. Conventions as in jobs.sql.

-- name: examine
-- The server's side of a check-up: its clock, its version, what would slow the table down. What it
-- cannot see without the rights of pg_read_all_stats it counts as well and says so.
WITH ours AS MATERIALIZED (
    SELECT relation.oid, relation.relname, relation.reltuples, relation.reloptions
    FROM pg_class AS relation
    WHERE relation.oid = to_regclass('jobs')
),
options AS MATERIALIZED (
    SELECT option_name, option_value
    FROM ours, pg_options_to_table(coalesce(ours.reloptions, '{}'))
),
oldest AS MATERIALIZED (
    SELECT pid, usename, application_name, state,
        extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
    ORDER BY xact_start LIMIT 1
)
SELECT
    extract(epoch FROM clock_timestamp())::float8 AS server_epoch,
    pg_backend_pid() AS server_pid,
    current_setting('server_version_num')::int AS server_version,
    coalesce(substring(obj_description((SELECT oid FROM ours), 'pg_class')
        from 'async_jobs schema (\d+)'), '0')::int AS schema_version,
    ARRAY(SELECT index.indexrelid::regclass::text FROM pg_index AS index, ours
        WHERE index.indrelid = ours.oid AND index.indisvalid) AS valid_indexes,
    ARRAY(SELECT index.indexrelid::regclass::text FROM pg_index AS index
        WHERE NOT index.indisvalid AND index.indrelid::regclass::text ~ '^jobs(_[a-z]+)?$')
        AS invalid_indexes,
    ARRAY(SELECT used.indexrelname::text FROM pg_stat_user_indexes AS used, ours
        WHERE used.relid = ours.oid AND used.idx_scan = 0) AS unused_indexes,
    coalesce((SELECT n_tup_upd FROM pg_stat_user_tables, ours
        WHERE relid = ours.oid), 0)::float8 AS updates,
    current_setting('autovacuum') = 'on'
        AND current_setting('track_counts') = 'on' AS autovacuums,
    coalesce((SELECT option_value FROM options
        WHERE option_name = 'autovacuum_enabled'), 'true')::boolean AS autovacuums_table,
    coalesce((SELECT option_value FROM options
        WHERE option_name = 'autovacuum_vacuum_scale_factor'),
        current_setting('autovacuum_vacuum_scale_factor'))::float8 AS vacuum_share,
    coalesce((SELECT option_value FROM options
        WHERE option_name = 'autovacuum_vacuum_threshold'),
        current_setting('autovacuum_vacuum_threshold'))::float8 AS vacuum_threshold,
    (SELECT extract(epoch FROM clock_timestamp() - greatest(last_vacuum, last_autovacuum))::float8
        FROM pg_stat_user_tables, ours WHERE relid = ours.oid) AS since_vacuum_seconds,
    coalesce((SELECT seconds FROM oldest), 0) AS oldest_transaction_seconds,
    (SELECT jsonb_build_object('pid', pid, 'role', usename, 'name', application_name,
        'state', state) FROM oldest) AS oldest_transaction,
    pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all_sessions,
    (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database())::int
        AS prepared_transactions,
    coalesce((SELECT extract(epoch FROM clock_timestamp() - min(prepared))::float8
        FROM pg_prepared_xacts WHERE database = current_database()), 0) AS prepared_seconds,
    ARRAY(SELECT slot_name::text FROM pg_replication_slots
        WHERE NOT active AND (xmin IS NOT NULL OR catalog_xmin IS NOT NULL))
        AS idle_slots,
    coalesce((SELECT n_dead_tup FROM pg_stat_user_tables, ours
        WHERE relid = ours.oid), 0)::float8 AS dead_rows,
    coalesce((SELECT n_live_tup FROM pg_stat_user_tables, ours
        WHERE relid = ours.oid), 0)::float8 AS live_rows,
    pg_is_in_recovery() AS is_standby;
