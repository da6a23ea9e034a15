-- Transfers of degrees between accounts, and references checked once a statement.
ALTER TABLE ledger_account SET (fillfactor = 50);
ALTER TABLE attempt SET (fillfactor = 50);
ALTER TABLE entry DROP CONSTRAINT entry_transfer_id_fkey, DROP CONSTRAINT entry_account_id_fkey;
ALTER TABLE hold DROP CONSTRAINT hold_job_id_fkey, DROP CONSTRAINT hold_wallet_id_fkey;
ALTER TABLE usage DROP CONSTRAINT usage_attempt_id_fkey, DROP CONSTRAINT usage_transfer_id_fkey;
ALTER TABLE lot_use DROP CONSTRAINT lot_use_transfer_id_fkey, DROP CONSTRAINT lot_use_lot_id_fkey,
    DROP CONSTRAINT lot_use_attempt_id_fkey, ADD COLUMN to_lot_id text,
    ADD CONSTRAINT one_way_out CHECK (attempt_id IS NULL OR to_lot_id IS NULL);
DROP INDEX lot_use_lot;
DROP INDEX lot_use_attempt;
CREATE INDEX lot_use_attempt ON lot_use (attempt_id) WHERE attempt_id IS NOT NULL;
CREATE UNIQUE INDEX lot_use_to_lot ON lot_use (to_lot_id) WHERE to_lot_id IS NOT NULL;

CREATE FUNCTION check_entries() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE broken text;
BEGIN
    SELECT e.transfer_id INTO broken FROM (
        SELECT n.transfer_id, n.dr, n.cr,
               (SELECT l.unit FROM ledger_account l WHERE l.id = n.account_id) AS unit,
               (SELECT t.id FROM transfer t WHERE t.id = n.transfer_id) AS found
        FROM fresh n) e
    GROUP BY e.transfer_id, e.unit
    HAVING sum(e.dr) <> sum(e.cr) OR bool_or(e.unit IS NULL OR e.found IS NULL) LIMIT 1;
    IF FOUND THEN
        RAISE integrity_constraint_violation USING CONSTRAINT = 'entries_balance',
            MESSAGE = format('transfer %s does not balance, or lacks itself or an account', broken);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER entry_checked AFTER INSERT ON entry REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION check_entries();

-- Post one transfer of one debit and one credit: what `post_transfers` does, for the commonest case
-- and without its sets.
CREATE FUNCTION post_transfer(id text, kind text, at timestamptz, note jsonb, debit bigint,
                              credit bigint, amount numeric)
    RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF debit < credit THEN  -- the order of ids, in which everybody locks
        UPDATE ledger_account l SET posted_dr = l.posted_dr + amount WHERE l.id = debit;
    END IF;
    UPDATE ledger_account l SET posted_cr = l.posted_cr + amount WHERE l.id = credit;
    IF debit > credit THEN
        UPDATE ledger_account l SET posted_dr = l.posted_dr + amount WHERE l.id = debit;
    END IF;
    INSERT INTO transfer (id, kind, at, note)
    VALUES (post_transfer.id, post_transfer.kind, post_transfer.at, post_transfer.note);
    INSERT INTO entry (transfer_id, account_id, dr, cr)
    VALUES (post_transfer.id, debit, amount, 0), (post_transfer.id, credit, 0, amount);
END $$;

-- Post transfers: change the balances, each account once and in the order of ids (in which everybody
-- locks), and write transfers and entries. Nothing is decided here; the floors refuse what no
-- decision should ask. `entry_of[i]` is the place in `ids` of the transfer that entry `i` belongs to.
CREATE FUNCTION post_transfers(ids text[], kinds text[], at timestamptz, notes jsonb[],
                               entry_of integer[], accounts bigint[], drs numeric[], crs numeric[])
    RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM ledger_account l WHERE l.id = ANY(accounts) ORDER BY l.id FOR NO KEY UPDATE;
    UPDATE ledger_account l SET posted_dr = l.posted_dr + d.dr, posted_cr = l.posted_cr + d.cr
    FROM (SELECT u.account, sum(u.dr) AS dr, sum(u.cr) AS cr
          FROM unnest(accounts, drs, crs) AS u (account, dr, cr) GROUP BY 1) d
    WHERE l.id = d.account;
    INSERT INTO transfer (id, kind, at, note)
    SELECT u.id, u.kind, post_transfers.at, u.note FROM unnest(ids, kinds, notes) AS u (id, kind, note);
    INSERT INTO entry (transfer_id, account_id, dr, cr)
    SELECT ids[u.place], u.account, u.dr, u.cr
    FROM unnest(entry_of, accounts, drs, crs) AS u (place, account, dr, cr);
END $$;

CREATE FUNCTION check_references() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE broken text;
BEGIN
    IF TG_TABLE_NAME = 'hold' THEN
        SELECT n.job_id INTO broken FROM fresh n
        WHERE (SELECT j.id FROM job j WHERE j.id = n.job_id) IS NULL
           OR (SELECT l.id FROM ledger_account l WHERE l.id = n.wallet_id) IS NULL LIMIT 1;
    ELSIF TG_TABLE_NAME = 'usage' THEN
        SELECT n.attempt_id INTO broken FROM fresh n
        WHERE (SELECT a.id FROM attempt a WHERE a.id = n.attempt_id) IS NULL
           OR (SELECT t.id FROM transfer t WHERE t.id = n.transfer_id) IS NULL LIMIT 1;
    ELSE
        SELECT n.lot_id INTO broken FROM fresh n
        WHERE (SELECT t.id FROM transfer t WHERE t.id = n.transfer_id) IS NULL
           OR (SELECT l.id FROM lot l WHERE l.id = n.lot_id) IS NULL
           OR n.attempt_id IS NOT NULL
              AND (SELECT a.id FROM attempt a WHERE a.id = n.attempt_id) IS NULL
           OR n.to_lot_id IS NOT NULL
              AND (SELECT l.id FROM lot l WHERE l.id = n.to_lot_id) IS NULL LIMIT 1;
    END IF;
    IF FOUND THEN
        RAISE foreign_key_violation USING CONSTRAINT = TG_TABLE_NAME || '_refers',
            MESSAGE = format('a row of %s for %s refers to what does not exist', TG_TABLE_NAME, broken);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER hold_refers AFTER INSERT ON hold REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION check_references();
CREATE TRIGGER usage_refers AFTER INSERT ON usage REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION check_references();
CREATE TRIGGER lot_use_refers AFTER INSERT ON lot_use REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION check_references();

CREATE FUNCTION refuse_removal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are referred to: they stay, and keep their ids', TG_TABLE_NAME;
END $$;
CREATE TRIGGER ledger_account_stays BEFORE UPDATE OF id OR DELETE OR TRUNCATE ON ledger_account
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_removal();
CREATE TRIGGER lot_stays BEFORE UPDATE OF id OR DELETE OR TRUNCATE ON lot
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_removal();
CREATE TRIGGER job_stays BEFORE UPDATE OF id OR DELETE OR TRUNCATE ON job
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_removal();
CREATE TRIGGER attempt_stays BEFORE UPDATE OF id OR DELETE OR TRUNCATE ON attempt
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_removal();
CREATE TRIGGER hold_stays BEFORE UPDATE OF job_id, seq, wallet_id, limit_ids, reserved_gflop
    OR DELETE OR TRUNCATE ON hold FOR EACH STATEMENT EXECUTE FUNCTION refuse_removal();
CREATE TRIGGER usage_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON usage
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewrite();
CREATE TRIGGER lot_use_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON lot_use
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewrite();
