-- Pool, uploads, quotes, jobs, attempts.

-- name: devices_upsert
INSERT INTO device (device, node, make, model, kind, position, memory_mib, state, seen_at)
SELECT *, %(now)s FROM unnest(
    %(device)s::text[], %(node)s::text[], %(make)s::text[], %(model)s::text[], %(kind)s::text[],
    %(position)s::integer[], %(memory_mib)s::integer[], %(state)s::text[])
ON CONFLICT (device) DO UPDATE
SET node = EXCLUDED.node, make = EXCLUDED.make, model = EXCLUDED.model, kind = EXCLUDED.kind,
    position = EXCLUDED.position, memory_mib = EXCLUDED.memory_mib, state = EXCLUDED.state,
    seen_at = EXCLUDED.seen_at
WHERE (device.node, device.make, device.model, device.kind, device.position, device.memory_mib,
       device.state)
      IS DISTINCT FROM (EXCLUDED.node, EXCLUDED.make, EXCLUDED.model, EXCLUDED.kind,
                        EXCLUDED.position, EXCLUDED.memory_mib, EXCLUDED.state)

-- name: devices_gone
-- Devices that the engine no longer names are down; their history stays.
UPDATE device SET state = 'down' WHERE state <> 'down' AND NOT device = ANY(%(device)s)

-- name: devices_stamp
-- Differs whenever a device or a rating was written: every version of a row has the number of the
-- transaction that wrote it, and rows are only ever added to `rating`.
SELECT count(*) AS devices, coalesce(sum(xmin::text::bigint), 0)::bigint AS written,
       (SELECT count(*) FROM rating) AS ratings
FROM device

-- name: devices
SELECT d.device, d.node, d.make, d.model, d.kind, d.memory_mib, d.state, r.gflops, r.precision,
       r.basis, r.method, r.spread, r.samples, r.measured_at, a.job_id AS holder
FROM device d
LEFT JOIN LATERAL (SELECT * FROM rating WHERE rating.device = d.device ORDER BY id DESC LIMIT 1) r
     ON true
LEFT JOIN allocation l ON l.device = d.device AND l.to_at IS NULL
LEFT JOIN attempt a ON a.id = l.attempt_id
ORDER BY d.position, d.device

-- name: devices_rated
-- What a round reads of the devices: nothing that changes with who holds them.
SELECT d.device, d.node, d.make, d.model, d.kind, d.state, r.gflops, r.basis
FROM device d
LEFT JOIN LATERAL (SELECT * FROM rating WHERE rating.device = d.device ORDER BY id DESC LIMIT 1) r
     ON true
ORDER BY d.position, d.device

-- name: devices_held_since
-- Devices that a job held at any moment from then until now.
SELECT DISTINCT device AS id FROM allocation WHERE to_at IS NULL OR to_at >= %(since)s ORDER BY 1

-- name: rating_insert
INSERT INTO rating (device, gflops, precision, basis, method, spread, samples, measured_at)
VALUES (%(device)s, %(gflops)s, %(precision)s, %(basis)s, %(method)s, %(spread)s, %(samples)s,
        %(now)s)

-- name: upload_insert
INSERT INTO upload (id, org_id, sha256, bytes, created_at)
VALUES (%(id)s, %(org_id)s, %(sha256)s, %(bytes)s, %(now)s)

-- name: upload_by_id
SELECT * FROM upload WHERE id = %(id)s

-- name: quote_insert
INSERT INTO quote (id, account_id, member_id, spec, upload_id, state, menu, problem, created_at,
                   expires_at, price_version)
VALUES (%(id)s, %(account_id)s, %(member_id)s, %(spec)s, %(upload_id)s, %(state)s, %(menu)s,
        %(problem)s, %(now)s, %(expires_at)s, %(price_version)s)

-- name: quote_by_id
SELECT * FROM quote WHERE id = %(id)s

-- name: quotes_probed
-- Quotes whose probes have all ended and been settled.
SELECT * FROM quote q WHERE state = 'probing' AND NOT EXISTS (
    SELECT FROM job j WHERE j.quote_id = q.id AND j.probe AND (j.finished_at IS NULL OR EXISTS (
        SELECT FROM attempt a WHERE a.job_id = j.id AND NOT a.settled)))

-- name: quote_finish
UPDATE quote SET state = %(state)s, menu = %(menu)s, problem = %(problem)s,
       expires_at = %(expires_at)s
WHERE id = %(id)s AND state = 'probing'

-- name: probes_overdue
-- Probes that did not get their devices while their quote could wait for them.
SELECT j.id FROM quote q JOIN job j ON j.quote_id = q.id AND j.probe
WHERE q.state = 'probing' AND q.expires_at <= %(now)s
  AND j.finished_at IS NULL AND j.cancelled_by IS NULL
ORDER BY j.id

-- name: probes_of
SELECT j.*, c.path AS account_path, c.org_id FROM job j JOIN account c ON c.id = j.account_id
WHERE j.quote_id = %(quote_id)s AND j.probe ORDER BY j.count

-- name: job_insert
INSERT INTO job (id, account_id, member_id, name, spec, upload_id, quote_id, plan_id, probe, state,
                 kind, model, count, priority, grace_ms, wall_ms, requeues, balance_before_gflop,
                 submitted_at, queued_at, tier_permille, tier, expected_ms)
VALUES (%(id)s, %(account_id)s, %(member_id)s, %(name)s, %(spec)s, %(upload_id)s, %(quote_id)s,
        %(plan_id)s, %(probe)s, 'queued', %(kind)s, %(model)s, %(count)s, %(priority)s,
        %(grace_ms)s, %(wall_ms)s, %(requeues)s, %(balance)s, %(now)s, %(now)s,
        %(tier_permille)s, %(tier)s, %(expected_ms)s)

-- name: job_similar_ms
-- How long the last two jobs of the account ran that asked for the same (Tsafrir et al., 2007).
SELECT round(avg(ran.ms))::bigint AS id FROM (
    SELECT sum(a.held_ms / a.devices) AS ms FROM job j JOIN attempt a ON a.job_id = j.id
    WHERE j.account_id = %(account_id)s AND j.model = %(model)s AND j.count = %(count)s
      AND j.state = 'succeeded' AND NOT j.probe
    GROUP BY j.id ORDER BY max(j.finished_at) DESC LIMIT 2) ran
HAVING count(*) > 0

-- name: job_by_id
SELECT j.*, c.path AS account_path, c.org_id FROM job j JOIN account c ON c.id = j.account_id
WHERE j.id = %(id)s

-- name: job_seen
-- A job with the roles that a member has on its account and on all above it.
SELECT j.*, c.path AS account_path, c.org_id,
       ARRAY(SELECT r.role FROM member_role r WHERE r.member_id = %(member_id)s
             AND r.account_id = ANY(c.lineage)) AS roles
FROM job j JOIN account c ON c.id = j.account_id WHERE j.id = %(id)s

-- name: job_shown
-- A job as it is shown, once for each of its attempts, and once when it had none; with the roles that
-- a member has on its account and on all above it.
SELECT j.id, j.position, c.path AS account_path, c.org_id,
       ARRAY(SELECT r.role FROM member_role r WHERE r.member_id = %(member_id)s
             AND r.account_id = ANY(c.lineage)) AS roles,
       j.name, j.state, j.stop_reason, j.model, j.count AS devices, j.priority, j.quote_id,
       j.plan_id, j.waiting, j.submitted_at, j.finished_at,
       a.id AS attempt_id, a.number, a.state AS attempt_state, a.held_ms, a.end_reason,
       a.exit_code, a.exit_signal, a.end_text, a.isolation, a.started_at, a.ended_at
FROM job j JOIN account c ON c.id = j.account_id LEFT JOIN attempt a ON a.job_id = j.id
WHERE j.id = %(id)s ORDER BY a.number

-- name: jobs_shown
-- The same for the newest jobs of all accounts on which, or above which, the member has a role (all
-- accounts for the operator). Each account's newest are read off its index, however many it has.
SELECT j.id, j.position, page.account_path, page.org_id, '{}'::text[] AS roles,
       j.name, j.state, j.stop_reason, j.model, j.count AS devices, j.priority, j.quote_id,
       j.plan_id, j.waiting, j.submitted_at, j.finished_at,
       a.id AS attempt_id, a.number, a.state AS attempt_state, a.held_ms, a.end_reason,
       a.exit_code, a.exit_signal, a.end_text, a.isolation, a.started_at, a.ended_at
FROM (SELECT n.id, c.path AS account_path, c.org_id
      FROM account c CROSS JOIN LATERAL (
          SELECT o.id, o.position FROM job o
          WHERE o.account_id = c.id AND o.position < %(before)s::bigint AND NOT o.probe
            AND (%(state)s::text IS NULL OR o.state = %(state)s)
          ORDER BY o.position DESC LIMIT %(limit)s::bigint) n
      WHERE %(member_id)s::text IS NULL OR (c.org_id = %(org_id)s AND EXISTS (
          SELECT FROM member_role r WHERE r.member_id = %(member_id)s
          AND r.account_id = ANY(c.lineage)))
      ORDER BY n.position DESC LIMIT %(limit)s::bigint) page
JOIN job j ON j.id = page.id LEFT JOIN attempt a ON a.job_id = j.id
ORDER BY j.position DESC, a.number

-- name: jobs_lock
SELECT j.*, c.path AS account_path, c.org_id FROM job j JOIN account c ON c.id = j.account_id
WHERE j.id = ANY(%(ids)s) ORDER BY j.id FOR NO KEY UPDATE OF j

-- name: queue_stamps
-- Who waits, and all that changes of a job while it does: what it asks for never does.
SELECT j.id, j.waiting IS NOT NULL, h.job_id IS NOT NULL, j.claim, j.stop_reason, j.queued_at
FROM job j LEFT JOIN hold h ON h.job_id = j.id AND h.resolved_at IS NULL WHERE j.state = 'queued'

-- name: jobs_queued
-- What a round reads of a job that waits: never its spec.
SELECT j.id, j.position, j.account_id, j.kind, j.model, j.count, j.priority, j.grace_ms,
       j.probe, j.stop_reason, j.waiting IS NOT NULL AS told, h.job_id IS NOT NULL AS held,
       j.tier_permille, j.tier, j.wall_ms, j.expected_ms, j.requeues, j.claim,
       coalesce(j.queued_at, j.submitted_at) AS queued_at
FROM job j LEFT JOIN hold h ON h.job_id = j.id AND h.resolved_at IS NULL
WHERE j.id = ANY(%(ids)s) AND j.state = 'queued'

-- name: job_queued_any
SELECT id FROM job WHERE state = 'queued' LIMIT 1

-- name: jobs_lock_queued
-- Jobs are locked before balances, here as by whoever cancels one.
SELECT id FROM job WHERE id = ANY(%(ids)s) AND state = 'queued' ORDER BY id FOR NO KEY UPDATE

-- name: jobs_state
UPDATE job SET state = %(state)s, waiting = NULL, claim = NULL WHERE id = ANY(%(ids)s)

-- name: jobs_waiting
-- Only rows whose reason has changed are written.
UPDATE job j SET waiting = d.waiting
FROM unnest(%(jobs)s::text[], %(waiting)s::jsonb[]) AS d (id, waiting)
WHERE j.id = d.id AND j.state = 'queued' AND j.waiting IS DISTINCT FROM d.waiting

-- name: jobs_finish
UPDATE job j SET state = d.state, stop_reason = d.stop_reason, finished_at = %(now)s,
       waiting = NULL, claim = NULL, balance_after_gflop = l.posted_cr - l.posted_dr
FROM unnest(%(ids)s::text[], %(states)s::text[], %(reasons)s::text[]) AS d (id, state, stop_reason),
     account a JOIN ledger_account l ON l.id = a.wallet_id
WHERE j.id = d.id AND a.id = j.account_id

-- name: placed_stamps
-- Attempts that have devices, and all that changes of one while it has them, for a round.
SELECT id, stop_asked, started_at IS NULL FROM attempt WHERE state <> 'ended'

-- name: jobs_placed
-- Jobs that have devices, and which; what a round needs to know of them.
SELECT a.id AS attempt_id, j.id, j.account_id, j.tier, j.grace_ms, j.wall_ms, j.expected_ms,
       j.requeues, j.probe, a.stop_asked, coalesce(a.started_at, a.created_at) AS since,
       array_agg(l.device ORDER BY l.device) AS devices
FROM attempt a JOIN job j ON j.id = a.job_id
JOIN allocation l ON l.attempt_id = a.id AND l.to_at IS NULL
WHERE a.id = ANY(%(ids)s) AND a.state <> 'ended' GROUP BY j.id, a.id

-- name: shares_of
-- The accounts named, those that are guaranteed something, and all above them, as the scheduler
-- reads them: what is guaranteed to somebody who asks for nothing is borrowed, or not lent.
SELECT c.id, c.parent_id, c.path, coalesce(s.weight, 1) AS weight, s.quota_devices,
       s.borrow_devices, s.lend_devices, coalesce(s.usage_gflop, 0) AS usage_gflop, s.usage_at
FROM account c LEFT JOIN account_share s ON s.account_id = c.id
WHERE c.id IN (SELECT unnest(a.lineage) FROM account a WHERE a.id = ANY(%(accounts)s)
               UNION SELECT unnest(a.lineage) FROM account_share g JOIN account a
                            ON a.id = g.account_id WHERE g.quota_devices > 0) ORDER BY c.id

-- name: share_set
INSERT INTO account_share (account_id, weight, quota_devices, borrow_devices, lend_devices)
VALUES (%(account_id)s, %(weight)s, %(quota)s, %(borrow)s, %(lend)s)
ON CONFLICT (account_id) DO UPDATE SET weight = EXCLUDED.weight,
    quota_devices = EXCLUDED.quota_devices, borrow_devices = EXCLUDED.borrow_devices,
    lend_devices = EXCLUDED.lend_devices

-- name: accounts_used
-- What was held of devices, on top of what has faded since the last time.
INSERT INTO account_share AS s (account_id, usage_gflop, usage_at)
SELECT above.id, sum(u.gflop), %(now)s
FROM unnest(%(accounts)s::text[], %(gflop)s::bigint[]) AS u (account_id, gflop)
JOIN account a ON a.id = u.account_id CROSS JOIN unnest(a.lineage) AS above (id)
GROUP BY above.id ORDER BY above.id
ON CONFLICT (account_id) DO UPDATE SET usage_at = EXCLUDED.usage_at,
    usage_gflop = EXCLUDED.usage_gflop + s.usage_gflop * CASE
        WHEN s.usage_at IS NULL OR %(half_life_s)s::float8 = 0 THEN 1
        ELSE power(0.5, extract(epoch FROM EXCLUDED.usage_at - s.usage_at) / %(half_life_s)s) END

-- name: preempted_since
SELECT count(*) AS id FROM attempt
WHERE stop_asked = 'preempted' AND (ended_at IS NULL OR ended_at >= %(since)s)

-- name: jobs_claim
UPDATE job j SET claim = string_to_array(d.claim, E'\x1f'), waiting = d.waiting
FROM unnest(%(ids)s::text[], %(claims)s::text[], %(waiting)s::jsonb[]) AS d (id, claim, waiting)
WHERE j.id = d.id AND j.state = 'queued'

-- name: attempts_preempted
-- Only those that still run; whoever was told to stop before stops for that reason.
UPDATE attempt SET stop_asked = 'preempted', state = 'stopping'
WHERE job_id = ANY(%(jobs)s) AND state <> 'ended' AND stop_asked IS NULL
RETURNING id AS id

-- name: jobs_requeue
UPDATE job j SET state = 'queued', stop_reason = d.stop_reason, queued_at = %(now)s
FROM unnest(%(ids)s::text[], %(reasons)s::text[]) AS d (id, stop_reason) WHERE j.id = d.id

-- name: job_cancel
UPDATE job SET cancelled_by = %(by)s WHERE id = %(id)s AND cancelled_by IS NULL

-- name: attempts_insert
-- Who pays is whoever the job's open hold names.
INSERT INTO attempt (id, job_id, number, state, wallet_id, limit_ids, devices, make, model, kind,
                     rating_gflops, billed_gflops, rating_basis, isolation, lease_held_ms,
                     created_at)
SELECT d.id, d.job_id, (SELECT count(*) + 1 FROM attempt a WHERE a.job_id = d.job_id), 'starting',
       h.wallet_id, h.limit_ids, d.devices, d.make, d.model, d.kind, d.rating_gflops,
       d.billed_gflops, d.rating_basis, %(isolation)s, d.lease_held_ms, %(now)s
FROM unnest(%(ids)s::text[], %(jobs)s::text[], %(devices)s::integer[], %(makes)s::text[],
            %(models)s::text[], %(kinds)s::text[], %(ratings)s::bigint[], %(billed)s::bigint[],
            %(bases)s::text[], %(leases)s::bigint[])
     AS d (id, job_id, devices, make, model, kind, rating_gflops, billed_gflops, rating_basis,
           lease_held_ms)
JOIN hold h ON h.job_id = d.job_id AND h.resolved_at IS NULL

-- name: allocations_insert
INSERT INTO allocation (attempt_id, device, from_at)
SELECT *, %(now)s FROM unnest(%(attempts)s::text[], %(devices)s::text[])

-- name: allocations_end
UPDATE allocation SET to_at = greatest(%(now)s, from_at)
WHERE attempt_id = ANY(%(attempts)s) AND to_at IS NULL

-- name: devices_of_attempt
SELECT device FROM allocation WHERE attempt_id = %(attempt_id)s ORDER BY device

-- name: attempts_live
SELECT * FROM attempt WHERE state <> 'ended' ORDER BY created_at, id

-- name: cursors_live
SELECT id, cursor FROM attempt WHERE state <> 'ended' ORDER BY created_at, id

-- name: attempt_live_any
SELECT 1 AS id FROM attempt WHERE state <> 'ended' LIMIT 1

-- name: attempts_of_job
SELECT * FROM attempt WHERE job_id = %(job_id)s ORDER BY number

-- name: attempts_of_jobs
SELECT * FROM attempt WHERE job_id = ANY(%(jobs)s) ORDER BY job_id, number

-- name: attempt_lock
SELECT * FROM attempt WHERE id = %(id)s FOR NO KEY UPDATE

-- name: attempts_lock
SELECT * FROM attempt WHERE id = ANY(%(ids)s) ORDER BY id FOR NO KEY UPDATE

-- name: attempts_observed
UPDATE attempt a
SET cursor = d.cursor, held_ms = d.held_ms, meter = d.meter, state = d.state,
    started_at = coalesce(a.started_at, d.started_at)
FROM unnest(%(ids)s::text[], %(cursors)s::bigint[], %(held_ms)s::bigint[], %(meters)s::jsonb[],
            %(states)s::text[], %(started_at)s::timestamptz[])
     AS d (id, cursor, held_ms, meter, state, started_at)
WHERE a.id = d.id

-- name: jobs_running
UPDATE job SET state = 'running', waiting = NULL
WHERE id = ANY(%(ids)s) AND state = 'starting'

-- name: attempts_ended
UPDATE attempt a SET state = 'ended', end_reason = d.end_reason, exit_code = d.exit_code,
       exit_signal = d.exit_signal, end_text = d.end_text, ended_at = %(now)s
FROM unnest(%(ids)s::text[], %(reasons)s::text[], %(codes)s::integer[], %(signals)s::integer[],
            %(texts)s::text[]) AS d (id, end_reason, exit_code, exit_signal, end_text)
WHERE a.id = d.id

-- name: attempt_stop_asked
UPDATE attempt SET stop_asked = %(why)s, state = 'stopping' WHERE id = %(id)s AND state <> 'ended'

-- name: attempts_to_stop
-- Attempts of cancelled jobs that have not been told yet.
SELECT a.* FROM attempt a JOIN job j ON j.id = a.job_id
WHERE a.state <> 'ended' AND a.stop_asked IS NULL AND j.cancelled_by IS NOT NULL
