-- The invariants. Each query returns one row per account, job or transfer that breaks one, named
-- in `subject`; an empty answer means that it holds everywhere.

-- name: audit_debits_equal_credits
SELECT format('transfer %%s (%%s)', e.transfer_id, string_agg(l.path, ', ' ORDER BY l.path)) AS subject
FROM entry e JOIN ledger_account l ON l.id = e.account_id
GROUP BY e.transfer_id, l.unit HAVING sum(e.dr) <> sum(e.cr)
UNION ALL
SELECT DISTINCT format('transfer %%s is gone, its entries remain', e.transfer_id)
FROM entry e WHERE NOT EXISTS (SELECT FROM transfer t WHERE t.id = e.transfer_id)

-- name: audit_balances_equal_entries
SELECT format('account %%s: balance %%s, entries say %%s', l.path, l.posted_cr - l.posted_dr,
              coalesce(sum(e.cr - e.dr), 0)) AS subject
FROM ledger_account l LEFT JOIN entry e ON e.account_id = l.id
WHERE NOT l.rollup
GROUP BY l.id HAVING l.posted_dr <> coalesce(sum(e.dr), 0) OR l.posted_cr <> coalesce(sum(e.cr), 0)

-- name: audit_ceilings_equal_usage
-- A rollup counts what every account below it has spent.
SELECT format('account %%s: counted %%s, usage says %%s', l.path, l.posted_dr,
              coalesce(s.settled, 0)) AS subject
FROM ledger_account l LEFT JOIN (
    SELECT unnest(a.limit_ids) AS account_id, sum(u.settled) AS settled
    FROM attempt a JOIN (SELECT attempt_id, sum(settled_gflop) AS settled FROM usage GROUP BY 1) u
         ON u.attempt_id = a.id
    GROUP BY 1) s ON s.account_id = l.id
WHERE l.rollup AND (l.posted_dr <> coalesce(s.settled, 0) OR l.posted_cr <> 0)

-- name: audit_pending_equals_open_holds
WITH open AS (
    SELECT account_id, sum(reserved_gflop) AS reserved FROM (
        SELECT wallet_id AS account_id, reserved_gflop FROM hold WHERE resolved_at IS NULL
        UNION ALL
        SELECT unnest(limit_ids), reserved_gflop FROM hold WHERE resolved_at IS NULL) h
    GROUP BY account_id)
SELECT format('account %%s: pending %%s, open holds %%s', l.path, l.pending_dr,
              coalesce(o.reserved, 0)) AS subject
FROM ledger_account l LEFT JOIN open o ON o.account_id = l.id
WHERE l.pending_dr <> coalesce(o.reserved, 0)

-- name: audit_floors_hold
SELECT format('account %%s: %%s is below its floor %%s', path,
              posted_cr - posted_dr - pending_dr, floor) AS subject
FROM ledger_account WHERE posted_cr - posted_dr - pending_dr < floor
UNION ALL
-- A customer's wallet and cash may never be overdrawn, whatever the row says of itself.
SELECT format('account %%s: its floor is %%s, not 0', path, coalesce(floor::text, 'none'))
FROM ledger_account WHERE NOT rollup AND path NOT LIKE 'house/%%' AND floor IS DISTINCT FROM 0

-- name: audit_lots_equal_wallets
SELECT format('account %%s: balance %%s, lots hold %%s', l.path, l.posted_cr - l.posted_dr,
              coalesce(sum(t.remaining_gflop), 0)) AS subject
FROM ledger_account l JOIN (SELECT DISTINCT wallet_id FROM account) w ON w.wallet_id = l.id
LEFT JOIN lot t ON t.wallet_id = l.id
GROUP BY l.id HAVING l.posted_cr - l.posted_dr <> coalesce(sum(t.remaining_gflop), 0)

-- name: audit_lots_equal_uses
SELECT format('lot %%s of account %%s', t.id, l.path) AS subject
FROM lot t JOIN ledger_account l ON l.id = t.wallet_id
LEFT JOIN (SELECT lot_id, sum(gflop) AS gflop, sum(fen) AS fen FROM lot_use GROUP BY lot_id) u
       ON u.lot_id = t.id
WHERE t.initial_gflop - t.remaining_gflop <> coalesce(u.gflop, 0)
   OR t.spent_fen <> coalesce(u.fen, 0)
   OR (t.remaining_gflop = 0 AND t.spent_fen <> t.paid_fen)

-- name: audit_lots_equal_purchases
-- What a transfer credited to a wallet is what its lots began with. What a lot was paid is what its
-- purchase deferred or, when it was moved, what left the lot it came from, whose terms it keeps.
SELECT format('lots of account %%s by transfer %%s', l.path, t.transfer_id) AS subject
FROM lot t JOIN ledger_account l ON l.id = t.wallet_id
GROUP BY l.path, t.transfer_id, t.wallet_id
HAVING sum(t.initial_gflop) <> coalesce((SELECT e.cr FROM entry e
           WHERE e.transfer_id = t.transfer_id AND e.account_id = t.wallet_id), 0)
UNION ALL
SELECT format('lot %%s of account %%s', t.id, l.path)
FROM lot t JOIN ledger_account l ON l.id = t.wallet_id LEFT JOIN lot_use u ON u.to_lot_id = t.id
LEFT JOIN lot s ON s.id = u.lot_id
WHERE CASE WHEN u.to_lot_id IS NULL
      THEN t.paid_fen <> coalesce((SELECT sum(e.cr) FROM entry e JOIN ledger_account d
                                   ON d.id = e.account_id AND d.path = 'house/deferred'
                                   WHERE e.transfer_id = t.transfer_id), 0)
      ELSE (t.initial_gflop, t.paid_fen, t.transfer_id) <> (u.gflop, u.fen, u.transfer_id)
           OR (t.package_id, t.kind, t.priority, t.granted, t.created_at, t.expires_at)
              IS DISTINCT FROM
              (s.package_id, s.kind, s.priority, s.granted, s.created_at, s.expires_at)
      END
   OR t.expires_at IS DISTINCT FROM (
       SELECT date_trunc('milliseconds', t.created_at) + p.valid_days * interval '24 hours'
       FROM package p
       WHERE p.id = t.package_id)

-- name: audit_holds_resolve_once
SELECT format('job %%s: its holds do not follow one another', job_id) AS subject
FROM hold GROUP BY job_id
HAVING min(seq) <> 1 OR max(seq) <> count(*) OR count(*) FILTER (WHERE resolved_at IS NULL) > 1
    OR bool_or(resolved_at IS NULL AND seq < (SELECT max(m.seq) FROM hold m WHERE m.job_id = hold.job_id))
UNION ALL
SELECT format('job %%s: hold %%s settled %%s, usage says %%s', h.job_id, h.seq, h.settled_gflop,
              coalesce(u.settled, 0))
FROM hold h LEFT JOIN (
    SELECT a.job_id, u.hold_seq, sum(u.settled_gflop) AS settled
    FROM usage u JOIN attempt a ON a.id = u.attempt_id GROUP BY 1, 2) u
  ON u.job_id = h.job_id AND u.hold_seq = h.seq
WHERE coalesce(h.settled_gflop, 0) <> coalesce(u.settled, 0)

-- name: audit_jobs_have_their_holds
-- A running job has an open hold, one that has ended has none.
SELECT format('job %%s is %%s', j.id, j.state) AS subject
FROM job j LEFT JOIN hold h ON h.job_id = j.id AND h.resolved_at IS NULL
WHERE (h.job_id IS NULL AND j.state IN ('starting', 'running', 'stopping'))
   OR (h.job_id IS NOT NULL AND j.state IN ('succeeded', 'failed', 'cancelled'))

-- name: audit_usage_equals_lot_uses
SELECT format('job %%s (attempt %%s): settled %%s, lots gave %%s', a.job_id, a.id, u.settled,
              coalesce(l.gflop, 0)) AS subject
FROM attempt a
JOIN (SELECT attempt_id, sum(settled_gflop) AS settled FROM usage GROUP BY 1) u
     ON u.attempt_id = a.id
LEFT JOIN (SELECT attempt_id, sum(gflop) AS gflop FROM lot_use GROUP BY 1) l ON l.attempt_id = a.id
WHERE u.settled <> coalesce(l.gflop, 0)

-- name: audit_attempts
-- Attempts with what the tiling of their usage is checked against.
SELECT id, job_id, coalesce(billed_gflops, rating_gflops) AS rating_gflops, metered_ms, held_ms,
       settled
FROM attempt ORDER BY id

-- name: audit_usage
SELECT attempt_id, seq, from_ms, to_ms, held_gflop FROM usage ORDER BY attempt_id, seq

-- name: audit_registers
SELECT format('job %%s (attempt %%s): held %%s ms, metered %%s ms', job_id, id, held_ms, metered_ms)
       AS subject
FROM attempt
WHERE metered_ms > held_ms OR (settled AND (metered_ms <> held_ms OR state <> 'ended'))

-- name: audit_devices_not_shared
SELECT format('device %%s: attempt %%s began before others had given it back', device, attempt_id)
       AS subject
FROM (SELECT device, attempt_id, from_at,
             max(coalesce(to_at, 'infinity')) OVER (PARTITION BY device ORDER BY from_at, to_at
                 ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS others_to_at
      FROM allocation WHERE to_at IS DISTINCT FROM from_at) a
WHERE from_at < others_to_at

-- name: audit_house
-- The centre's own accounts say what the customers' records say.
SELECT format('account %%s: %%s, records say %%s', path, actual, expected) AS subject FROM (
    SELECT l.path, l.posted_cr - l.posted_dr AS actual,
           CASE l.path
               WHEN 'house/consumed' THEN (SELECT coalesce(sum(held_gflop), 0) FROM usage)
               WHEN 'house/loss' THEN (SELECT -coalesce(sum(overrun_gflop), 0) FROM usage)
               WHEN 'house/borne' THEN (SELECT -coalesce(sum(borne_gflop), 0) FROM usage)
               WHEN 'house/issued' THEN (SELECT -coalesce(sum(initial_gflop), 0) FROM lot t
                    WHERE NOT EXISTS (SELECT FROM lot_use u WHERE u.to_lot_id = t.id))
               WHEN 'house/lapsed' THEN
                   (SELECT coalesce(sum(gflop), 0) FROM lot_use
                    WHERE attempt_id IS NULL AND to_lot_id IS NULL)
               WHEN 'house/revenue' THEN
                   (SELECT coalesce(sum(fen), 0) FROM lot_use WHERE attempt_id IS NOT NULL)
               WHEN 'house/breakage' THEN
                   (SELECT coalesce(sum(fen), 0) FROM lot_use
                    WHERE attempt_id IS NULL AND to_lot_id IS NULL)
               WHEN 'house/deferred' THEN (SELECT coalesce(sum(paid_fen - spent_fen), 0) FROM lot)
           END AS expected
    FROM ledger_account l WHERE l.path LIKE 'house/%%') h
WHERE actual <> expected

-- name: audit_overrun
SELECT format('job %%s: %%s GFLOP beyond its holds', a.job_id, sum(u.overrun_gflop)) AS subject
FROM usage u JOIN attempt a ON a.id = u.attempt_id
GROUP BY a.job_id HAVING sum(u.overrun_gflop) > 0

-- name: audit_quotes_cap_bills
-- Under an accepted quote the described work is charged its cap at most; every GFLOP of the job is
-- charged under the quote, billed beyond it, borne by the centre, or overrun of a hold.
SELECT format('job %%s: charged %%s of at most %%s GFLOP, %%s of at most %%s fen; beyond %%s, '
              'borne %%s', b.job_id, b.charged_gflop, b.cap_gflop, b.charged_fen, b.cap_fen,
              b.beyond_gflop, b.borne_gflop) AS subject
FROM binding b LEFT JOIN (
    SELECT a.job_id, sum(u.settled_gflop) AS settled, sum(u.borne_gflop) AS borne
    FROM usage u JOIN attempt a ON a.id = u.attempt_id GROUP BY 1) u ON u.job_id = b.job_id
LEFT JOIN (
    SELECT a.job_id, sum(l.fen) AS fen
    FROM lot_use l JOIN attempt a ON a.id = l.attempt_id GROUP BY 1) f ON f.job_id = b.job_id
WHERE b.charged_gflop > b.cap_gflop OR b.charged_fen > b.cap_fen
   OR b.charged_gflop + b.beyond_gflop <> coalesce(u.settled, 0)
   OR b.charged_fen + b.beyond_fen <> coalesce(f.fen, 0)
   OR b.borne_gflop <> coalesce(u.borne, 0)
   OR (b.done_attempt IS NULL AND b.beyond_gflop <> 0)
UNION ALL
SELECT format('job %%s: the centre bore %%s GFLOP without a quote', a.job_id, sum(u.borne_gflop))
FROM usage u JOIN attempt a ON a.id = u.attempt_id
WHERE u.borne_gflop > 0 AND NOT EXISTS (SELECT FROM binding b WHERE b.job_id = a.job_id)
GROUP BY a.job_id
