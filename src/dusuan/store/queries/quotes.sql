-- Accepted quotes and price versions. What a tick charges under a quote is in ledger.sql.

-- name: binding_insert
INSERT INTO binding (job_id, quote_id, plan_id, template, basis, work, quoted_gflop, quoted_p50_s,
                     quoted_p90_s, cap_gflop, cap_fen, bears_gflop, accepted_at)
VALUES (%(job_id)s, %(quote_id)s, %(plan_id)s, %(template)s, %(basis)s, %(work)s,
        %(quoted_gflop)s, %(quoted_p50_s)s, %(quoted_p90_s)s, %(cap_gflop)s, %(cap_fen)s,
        %(bears_gflop)s, %(now)s)

-- name: bindings_of
SELECT * FROM binding WHERE job_id = ANY(%(jobs)s)

-- name: binding_done
-- The described work is done: this attempt has reported more than it. Once said, it stays.
UPDATE binding SET done_attempt = %(attempt)s, done_ms = %(held_ms)s
WHERE job_id = %(job_id)s AND done_attempt IS NULL

-- name: binding_spared
UPDATE binding SET bears_gflop = bears_gflop + %(gflop)s WHERE job_id = %(job_id)s

-- name: quotes_kept
-- Accepted quotes whose job has succeeded, with the seconds that their described work took.
SELECT o.name AS org, b.template, b.basis, b.plan_id, b.quoted_gflop, b.quoted_p50_s,
       b.quoted_p90_s, b.cap_gflop, b.charged_gflop, b.borne_gflop, b.beyond_gflop,
       j.finished_at, (
           SELECT sum(CASE WHEN b.done_attempt = a.id THEN b.done_ms
                           WHEN d.number < a.number THEN 0
                           ELSE a.held_ms END / a.devices) / 1000.0
           FROM attempt a WHERE a.job_id = b.job_id)::double precision AS took_s
FROM binding b JOIN job j ON j.id = b.job_id JOIN account c ON c.id = j.account_id
JOIN organisation o ON o.id = c.org_id LEFT JOIN attempt d ON d.id = b.done_attempt
WHERE j.state = 'succeeded' AND (%(accounts)s::text[] IS NULL OR j.account_id = ANY(%(accounts)s))
  AND (%(template)s::text IS NULL OR b.template = %(template)s)
ORDER BY j.finished_at

-- name: price_version_latest
SELECT id, tiers FROM price_version ORDER BY id DESC LIMIT 1

-- name: price_version_by_id
SELECT id, tiers FROM price_version WHERE id = %(id)s

-- name: price_version_insert
INSERT INTO price_version (tiers, created_at) VALUES (%(tiers)s, %(now)s)
