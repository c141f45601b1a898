-- What a check-up looks at. Conventions as in jobs.sql.

-- name: examine
-- The server's side of a check-up: its clock, its version, what would slow the table down.
SELECT
    extract(epoch FROM clock_timestamp())::float8 AS server_epoch,
    current_setting('server_version_num')::int AS server_version,
    coalesce(substring(obj_description(to_regclass('jobs'), 'pg_class')
        from 'async_jobs schema (\d+)'), '0')::int AS schema_version,
    ARRAY(SELECT index.indexrelid::regclass::text FROM pg_index AS index
        WHERE index.indrelid = to_regclass('jobs') AND index.indisvalid) AS valid_indexes,
    current_setting('autovacuum') = 'on'
        AND current_setting('track_counts') = 'on' AS autovacuums,
    coalesce((SELECT extract(epoch FROM clock_timestamp() - min(xact_start))::float8
        FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()), 0)
        AS oldest_transaction_seconds,
    coalesce((SELECT n_dead_tup FROM pg_stat_user_tables
        WHERE relid = to_regclass('jobs')), 0)::float8 AS dead_rows,
    coalesce((SELECT n_live_tup FROM pg_stat_user_tables
        WHERE relid = to_regclass('jobs')), 0)::float8 AS live_rows,
    pg_is_in_recovery() AS is_standby;
