-- Who leads a database. Sessions tell who they are by their application name: 'dusuan leader' holds
-- the lock, 'dusuan loop TERM' does what a leader does.

-- name: lead_try
SELECT pg_try_advisory_lock(%(lock)s) AS granted

-- name: lead_term
-- None for a service whose data directory is not the one that this database belongs to.
UPDATE centre SET term = term + 1 WHERE data_dir IS NOT DISTINCT FROM %(data_dir)s
RETURNING term AS id

-- name: lead_beat
-- Whatever it answers, asking shows that the leader lives: its session's state has changed.
SELECT term AS id FROM centre WHERE data_dir IS NOT DISTINCT FROM %(data_dir)s

-- name: lead_holder
SELECT l.pid, s.state_change::text AS said
FROM pg_locks l JOIN pg_stat_activity s ON s.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.classid = 0 AND l.objid = %(lock)s
  AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())

-- name: session_end
SELECT pg_terminate_backend(%(pid)s, %(wait_ms)s)

-- name: loops_end
-- Every session of an earlier leader's loop: what it had not committed is rolled back.
SELECT pg_terminate_backend(pid, %(wait_ms)s) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'dusuan loop %%'

-- name: centre_claim
-- One database, one data directory.
UPDATE centre SET data_dir = %(data_dir)s
WHERE data_dir IS NULL OR data_dir = %(data_dir)s OR %(by_force)s RETURNING term AS id
