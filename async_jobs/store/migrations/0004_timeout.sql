-- online
-- How long an attempt may take, where the job's producer says so; NULL: as its type is registered.
ALTER TABLE jobs ADD COLUMN IF NOT EXISTS timeout_seconds double precision;
