-- What is kept for a while only: files of jobs that have ended, uploads, remembered answers. What is
-- owed or was paid is kept for good.

-- name: jobs_to_clear
SELECT id FROM job WHERE finished_at < %(before)s AND files_removed_at IS NULL
ORDER BY finished_at LIMIT %(limit)s

-- name: job_cleared
UPDATE job SET files_removed_at = %(now)s WHERE id = %(id)s

-- name: uploads_to_clear
-- Old ones that no job may still want (a job that has ended and was cleared wants none).
SELECT id FROM upload u
WHERE created_at < %(before)s AND removed_at IS NULL
  AND NOT EXISTS (SELECT FROM job j WHERE j.upload_id = u.id AND j.files_removed_at IS NULL)
  AND NOT EXISTS (SELECT FROM quote q WHERE q.upload_id = u.id AND q.expires_at > %(now)s)
ORDER BY created_at LIMIT %(limit)s

-- name: upload_cleared
UPDATE upload SET removed_at = %(now)s WHERE id = %(id)s

-- name: replays_forget
DELETE FROM idempotency WHERE ctid IN (
    SELECT ctid FROM idempotency WHERE created_at < %(before)s LIMIT %(limit)s)
