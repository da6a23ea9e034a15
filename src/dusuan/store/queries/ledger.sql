-- Balances, transfers, lots, holds, usage. Everything here is set-based: one statement per kind of
-- change, whatever the number of jobs.

-- name: balances_lock
-- Rows are locked in the order of their ids, customers' before the centre's own, so that two
-- transactions never wait for each other. NO KEY: an entry's reference to its account takes a share
-- of the row, and two writers that hold one each could never upgrade it.
SELECT id, path, unit, posted_dr, posted_cr, pending_dr, floor FROM ledger_account
WHERE id = ANY(%(ids)s) ORDER BY id FOR NO KEY UPDATE

-- name: balances_read
SELECT id, path, unit, posted_dr, posted_cr, pending_dr, floor FROM ledger_account
WHERE id = ANY(%(ids)s) ORDER BY id

-- name: wallet_shown
-- An account's wallet, cash and spending, once for each lot with something in it, and once when there
-- is none; with the roles that a member has on the account and on all above it.
SELECT a.path, a.org_id,
       ARRAY(SELECT r.role FROM member_role r WHERE r.member_id = %(member_id)s
             AND r.account_id = ANY(a.lineage)) AS roles,
       w.path AS wallet_path, w.posted_dr, w.posted_cr, w.pending_dr, w.floor,
       c.posted_cr - c.posted_dr AS cash_fen, s.posted_dr AS spent_dr, s.posted_cr AS spent_cr,
       s.pending_dr AS spent_pending_dr, s.floor AS spent_floor,
       l.id AS lot_id, a.wallet_id, l.package_id, l.kind, l.initial_gflop, l.remaining_gflop, l.paid_fen, l.spent_fen,
       l.priority, l.granted, l.created_at, l.expires_at
FROM account a JOIN ledger_account w ON w.id = a.wallet_id
JOIN ledger_account c ON c.id = a.cash_id JOIN ledger_account s ON s.id = a.spend_id
LEFT JOIN lot l ON l.wallet_id = a.wallet_id AND l.remaining_gflop > 0
WHERE a.path = %(path)s

-- name: house_accounts
SELECT id, path, unit, posted_dr, posted_cr, pending_dr, floor FROM ledger_account
WHERE path LIKE 'house/%%'

-- name: balances_apply
UPDATE ledger_account a
SET posted_dr = a.posted_dr + d.dr, posted_cr = a.posted_cr + d.cr,
    pending_dr = a.pending_dr + d.pending
FROM unnest(%(ids)s::bigint[], %(dr)s::numeric[], %(cr)s::numeric[], %(pending)s::numeric[])
     AS d (id, dr, cr, pending)
WHERE a.id = d.id

-- name: floor_set
UPDATE ledger_account SET floor = %(floor)s WHERE id = %(id)s

-- name: transfer_insert
INSERT INTO transfer (id, kind, at, note) VALUES (%(id)s, %(kind)s, %(now)s, %(note)s)

-- name: entries_insert
INSERT INTO entry (transfer_id, account_id, dr, cr)
SELECT %(transfer_id)s, * FROM unnest(%(ids)s::bigint[], %(dr)s::numeric[], %(cr)s::numeric[])

-- name: post_transfer
SELECT post_transfer(%(id)s, %(kind)s, %(now)s, %(note)s, %(debit)s::bigint, %(credit)s::bigint,
                     %(amount)s::numeric)

-- name: post_transfers
SELECT post_transfers(%(ids)s::text[], %(kinds)s::text[], %(now)s, %(notes)s::jsonb[],
                      %(entry_of)s::integer[], %(accounts)s::bigint[], %(drs)s::numeric[],
                      %(crs)s::numeric[])

-- name: lots_of_wallets
-- Not locked: a lot is changed only by who holds its wallet's row.
SELECT id, wallet_id, package_id, kind, initial_gflop, remaining_gflop, paid_fen, spent_fen,
       priority, granted, created_at, expires_at
FROM lot WHERE wallet_id = ANY(%(wallets)s) AND remaining_gflop > 0

-- name: lots_insert_moved
-- A lot that came from another one keeps that one's package, kind and age.
INSERT INTO lot (id, wallet_id, transfer_id, package_id, kind, initial_gflop, remaining_gflop,
                 paid_fen, spent_fen, priority, granted, created_at, expires_at)
SELECT d.id, %(wallet_id)s, %(transfer_id)s, l.package_id, l.kind, d.gflop, d.gflop, d.fen, 0,
       l.priority, l.granted, l.created_at, l.expires_at
FROM unnest(%(ids)s::text[], %(sources)s::text[], %(gflop)s::bigint[], %(fen)s::bigint[])
     AS d (id, source, gflop, fen)
JOIN lot l ON l.id = d.source

-- name: lot_insert
INSERT INTO lot (id, wallet_id, transfer_id, package_id, kind, initial_gflop, remaining_gflop,
                 paid_fen, spent_fen, priority, granted, created_at, expires_at)
VALUES (%(id)s, %(wallet_id)s, %(transfer_id)s, %(package_id)s, %(kind)s, %(initial_gflop)s,
        %(initial_gflop)s, %(paid_fen)s, 0, %(priority)s, %(granted)s, %(now)s, %(expires_at)s)

-- name: lots_update
UPDATE lot l SET remaining_gflop = d.remaining, spent_fen = d.spent
FROM unnest(%(ids)s::text[], %(remaining)s::bigint[], %(spent)s::bigint[]) AS d (id, remaining, spent)
WHERE l.id = d.id

-- name: lot_uses_insert
INSERT INTO lot_use (transfer_id, lot_id, attempt_id, gflop, fen, to_lot_id)
SELECT %(transfer_id)s, * FROM unnest(%(lots)s::text[], %(attempts)s::text[], %(gflop)s::bigint[],
                                      %(fen)s::bigint[], %(to_lots)s::text[])

-- name: wallets_with_expired_lots
SELECT DISTINCT wallet_id AS id FROM lot WHERE remaining_gflop > 0 AND expires_at <= %(now)s

-- name: hold_insert
INSERT INTO hold (job_id, seq, wallet_id, limit_ids, reserved_gflop, opened_at)
VALUES (%(job_id)s, (SELECT count(*) + 1 FROM hold WHERE job_id = %(job_id)s), %(wallet_id)s,
        %(limit_ids)s, %(reserved_gflop)s, %(now)s)

-- name: holds_open_of
SELECT job_id, seq, wallet_id, limit_ids, reserved_gflop FROM hold
WHERE job_id = ANY(%(jobs)s) AND resolved_at IS NULL

-- name: holds_resolve
UPDATE hold h SET resolved_at = %(now)s, settled_gflop = d.settled
FROM unnest(%(jobs)s::text[], %(seqs)s::integer[], %(settled)s::bigint[]) AS d (job_id, seq, settled)
WHERE h.job_id = d.job_id AND h.seq = d.seq AND h.resolved_at IS NULL

-- name: holds_open
-- The next hold of each job, for the same wallet and under the same ceilings as the one before.
INSERT INTO hold (job_id, seq, wallet_id, limit_ids, reserved_gflop, opened_at)
SELECT d.job_id, d.seq, h.wallet_id, h.limit_ids, d.reserved, %(now)s
FROM unnest(%(jobs)s::text[], %(seqs)s::integer[], %(reserved)s::bigint[])
     AS d (job_id, seq, reserved)
JOIN hold h ON h.job_id = d.job_id AND h.seq = d.seq - 1

-- name: usage_insert
INSERT INTO usage (attempt_id, seq, hold_seq, from_ms, to_ms, held_gflop, settled_gflop,
                   overrun_gflop, borne_gflop, transfer_id)
SELECT *, %(transfer_id)s FROM unnest(
    %(attempts)s::text[], %(seqs)s::integer[], %(hold_seqs)s::integer[], %(from_ms)s::bigint[],
    %(to_ms)s::bigint[], %(held)s::bigint[], %(settled)s::bigint[], %(overrun)s::bigint[],
    %(borne)s::bigint[])

-- name: attempts_metered
UPDATE attempt a
SET metered_ms = d.metered_ms, usage_seq = d.usage_seq,
    lease_held_ms = greatest(a.lease_held_ms, d.lease_held_ms),
    lease_seq = CASE WHEN d.lease_held_ms > a.lease_held_ms THEN a.lease_seq + 1 ELSE a.lease_seq END,
    settled = d.settled
FROM unnest(%(attempts)s::text[], %(metered_ms)s::bigint[], %(usage_seqs)s::integer[],
            %(lease_held_ms)s::bigint[], %(settled)s::boolean[])
     AS d (id, metered_ms, usage_seq, lease_held_ms, settled)
WHERE a.id = d.id

-- name: claims
-- Every attempt (of one wallet, if named) with something left to post, with its open hold, in the
-- order in which scarce balance is handed out: first started, first served. A quote's cover ends
-- (`until_ms`) where the attempt reported more than was described; for later attempts, at once.
SELECT a.job_id, a.id AS attempt_id, h.seq AS hold_seq, h.reserved_gflop, a.wallet_id, a.limit_ids,
       coalesce(a.billed_gflops, a.rating_gflops) AS rating_gflops, a.devices, j.grace_ms,
       a.usage_seq, a.metered_ms, a.held_ms,
       a.state = 'ended' AS ended, a.lease_seq, a.lease_held_ms,
       CASE WHEN b.capped THEN 0 ELSE b.cap_gflop - b.charged_gflop END AS cap_gflop,
       b.cap_fen - b.charged_fen AS cap_fen,
       greatest(b.bears_gflop - b.borne_gflop, 0) AS bears_gflop,
       CASE WHEN b.done_attempt = a.id THEN b.done_ms WHEN b.done_attempt IS NOT NULL THEN 0 END
           AS until_ms
FROM attempt a JOIN job j ON j.id = a.job_id
JOIN hold h ON h.job_id = a.job_id AND h.resolved_at IS NULL
LEFT JOIN binding b ON b.job_id = a.job_id
WHERE NOT a.settled AND (%(wallet)s::bigint IS NULL OR a.wallet_id = %(wallet)s)
ORDER BY a.created_at, a.id

-- name: uses_of_job
SELECT u.lot_id AS lot_id, l.kind, l.package_id, sum(u.gflop)::bigint AS gflop,
       sum(u.fen)::bigint AS fen
FROM lot_use u JOIN lot l ON l.id = u.lot_id JOIN attempt a ON a.id = u.attempt_id
WHERE a.job_id = %(job_id)s GROUP BY u.lot_id, l.kind, l.package_id, l.created_at
ORDER BY l.created_at, u.lot_id

-- name: usage_of_job
SELECT coalesce(sum(u.held_gflop), 0)::bigint AS held_gflop,
       coalesce(sum(u.settled_gflop), 0)::bigint AS settled_gflop,
       coalesce(sum(u.overrun_gflop), 0)::bigint AS overrun_gflop,
       coalesce(sum(u.borne_gflop), 0)::bigint AS borne_gflop
FROM usage u JOIN attempt a ON a.id = u.attempt_id WHERE a.job_id = %(job_id)s

-- name: package_insert
INSERT INTO package (id, name, gflop, price_fen, valid_days, priority, created_at)
VALUES (%(id)s, %(name)s, %(gflop)s, %(price_fen)s, %(valid_days)s, %(priority)s, %(now)s)
ON CONFLICT (name) WHERE withdrawn_at IS NULL DO NOTHING

-- name: package_withdraw
UPDATE package SET withdrawn_at = %(now)s WHERE name = %(name)s AND withdrawn_at IS NULL

-- name: packages_on_sale
SELECT id, name, gflop, price_fen, valid_days, priority FROM package
WHERE withdrawn_at IS NULL ORDER BY price_fen, name

-- name: package_by_name
SELECT id, name, gflop, price_fen, valid_days, priority FROM package
WHERE withdrawn_at IS NULL AND name = %(name)s

-- name: bindings_charged
UPDATE binding b
SET charged_gflop = b.charged_gflop + d.charged, charged_fen = b.charged_fen + d.charged_fen,
    beyond_gflop = b.beyond_gflop + d.beyond, beyond_fen = b.beyond_fen + d.beyond_fen,
    borne_gflop = b.borne_gflop + d.borne, capped = b.capped OR d.capped
FROM unnest(%(jobs)s::text[], %(charged)s::bigint[], %(charged_fen)s::bigint[],
            %(beyond)s::bigint[], %(beyond_fen)s::bigint[], %(borne)s::bigint[],
            %(capped)s::boolean[])
     AS d (job_id, charged, charged_fen, beyond, beyond_fen, borne, capped)
WHERE b.job_id = d.job_id
