-- The log of scheduling rounds.

-- name: round_last
SELECT coalesce(max(n), 0) AS id FROM round_log

-- name: round_insert
INSERT INTO round_log (n, at, whole, line) VALUES (%(n)s, %(at)s, %(whole)s, %(line)s)

-- name: jobs_left
-- What became of jobs that have no devices any more, or do not wait any more. The round that asks may
-- have begun another attempt just now.
SELECT j.id, j.state, j.stop_reason, j.finished_at, a.end_reason, a.stop_asked, a.ended_at,
       coalesce(a.started_at, a.created_at) AS began_at
FROM job j LEFT JOIN LATERAL (
    SELECT * FROM attempt WHERE attempt.job_id = j.id AND state = 'ended'
    ORDER BY number DESC LIMIT 1) a ON true
WHERE j.id = ANY(%(ids)s)

-- name: round_first_of
-- Where a log that is to hold everything since then begins: with a whole sight.
SELECT coalesce(
    (SELECT max(n) FROM round_log WHERE whole AND at <= %(since)s::timestamptz),
    (SELECT min(n) FROM round_log WHERE whole)) AS id

-- name: rounds_page
SELECT n, line FROM round_log
WHERE n >= %(first)s AND (%(until)s::timestamptz IS NULL OR at < %(until)s)
ORDER BY n LIMIT %(limit)s

-- name: rounds_forget
-- Up to the last whole sight that is old, or so far back: what is left begins with one. A batch at
-- a time, the oldest first, so that there is never a gap.
DELETE FROM round_log WHERE n IN (
    SELECT n FROM round_log WHERE n < (
        SELECT max(w.n) FROM round_log w
        WHERE w.whole AND (w.at < %(before)s
              OR w.n <= (SELECT max(n) FROM round_log) - %(most)s))
    ORDER BY n LIMIT %(limit)s)
