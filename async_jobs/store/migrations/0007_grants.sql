-- online
-- Leave for workers to claim waiting jobs themselves, for a second at a time. One row for each use
-- case that takes its jobs from the table and is busy; no job depends on it.
CREATE TABLE IF NOT EXISTS jobs_grants (
    use_case text PRIMARY KEY,
    asked_at timestamptz NOT NULL,
    capacity integer,
    expires_at timestamptz
) WITH (fillfactor = 50);
