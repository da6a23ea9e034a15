-- The schema as it stands, for reading. Migrations build it; a test proves that both are the same.
-- Degrees are whole GFLOP, money whole fen. Totals that can pass 2^63 are numeric.

-- One row: whose data directory this database belongs to, and how often its leader has changed.
CREATE TABLE centre (
    id          boolean PRIMARY KEY DEFAULT true CHECK (id),
    data_dir    text,
    term        bigint NOT NULL DEFAULT 0 CHECK (term >= 0)
);
INSERT INTO centre DEFAULT VALUES;

CREATE TABLE organisation (
    id          text PRIMARY KEY,
    name        text NOT NULL UNIQUE,
    created_at  timestamptz NOT NULL
);

-- Ledger. One row per balance. `rollup` rows count what all accounts below spend: they carry the
-- ceiling of an account (floor = -budget) and take no part in the double entry.
CREATE TABLE ledger_account (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    path        text NOT NULL,
    unit        text NOT NULL CHECK (unit IN ('gflop', 'fen')),
    rollup      boolean NOT NULL DEFAULT false,
    posted_dr   numeric(38) NOT NULL DEFAULT 0 CHECK (posted_dr >= 0),
    posted_cr   numeric(38) NOT NULL DEFAULT 0 CHECK (posted_cr >= 0),
    pending_dr  numeric(38) NOT NULL DEFAULT 0 CHECK (pending_dr >= 0),
    floor       numeric(38),
    UNIQUE (path, unit),
    CONSTRAINT floor_holds CHECK (posted_cr - posted_dr - pending_dr >= floor)
) WITH (fillfactor = 50);

CREATE TABLE transfer (
    id          text PRIMARY KEY,
    kind        text NOT NULL,
    at          timestamptz NOT NULL,
    note        jsonb NOT NULL DEFAULT '{}'
);

CREATE TABLE entry (
    transfer_id text NOT NULL,
    account_id  bigint NOT NULL,
    dr          numeric(38) NOT NULL CHECK (dr >= 0),
    cr          numeric(38) NOT NULL CHECK (cr >= 0),
    PRIMARY KEY (transfer_id, account_id)
);
CREATE INDEX entry_account ON entry (account_id);

-- What has been posted is never rewritten: a correction is another transfer.
CREATE FUNCTION refuse_rewrite() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END $$;
CREATE TRIGGER entry_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON entry
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewrite();
CREATE TRIGGER transfer_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON transfer
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewrite();

-- Every transfer balances in every unit, and its entries have an account and a transfer. Checked
-- once a statement: a foreign key asks once a row, and locks what it asks about.
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

-- Customers. `lineage` is the account itself and its ancestors, nearest first.
CREATE TABLE account (
    id          text PRIMARY KEY,
    org_id      text NOT NULL REFERENCES organisation,
    parent_id   text REFERENCES account,
    path        text NOT NULL UNIQUE,
    lineage     text[] NOT NULL,
    wallet_id   bigint NOT NULL REFERENCES ledger_account,
    cash_id     bigint NOT NULL REFERENCES ledger_account,
    spend_id    bigint NOT NULL REFERENCES ledger_account,
    limit_ids   bigint[] NOT NULL,
    created_at  timestamptz NOT NULL
);

CREATE TABLE member (
    id          text PRIMARY KEY,
    org_id      text NOT NULL REFERENCES organisation,
    name        text NOT NULL,
    created_at  timestamptz NOT NULL,
    UNIQUE (org_id, name)
);

CREATE TABLE member_role (
    member_id   text NOT NULL REFERENCES member,
    account_id  text NOT NULL REFERENCES account,
    role        text NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'auditor')),
    PRIMARY KEY (member_id, account_id)
);

-- A key without a member is an operator's. Only the hash of a key is kept.
CREATE TABLE api_key (
    id          text PRIMARY KEY,
    member_id   text REFERENCES member,
    hash        bytea NOT NULL UNIQUE,
    hint        text NOT NULL,
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz,
    revoked_at  timestamptz
);

-- Packages on sale. A row is one price version and never changes once written.
CREATE TABLE package (
    id           text PRIMARY KEY,
    name         text NOT NULL,
    gflop        bigint NOT NULL CHECK (gflop > 0),
    price_fen    bigint NOT NULL CHECK (price_fen >= 0),
    valid_days   integer CHECK (valid_days > 0),
    priority     integer NOT NULL,
    created_at   timestamptz NOT NULL,
    withdrawn_at timestamptz
);
CREATE UNIQUE INDEX package_on_sale ON package (name) WHERE withdrawn_at IS NULL;

CREATE TABLE lot (
    id              text PRIMARY KEY,
    wallet_id       bigint NOT NULL REFERENCES ledger_account,
    transfer_id     text NOT NULL REFERENCES transfer,
    package_id      text REFERENCES package,
    kind            text NOT NULL,
    initial_gflop   bigint NOT NULL CHECK (initial_gflop > 0),
    remaining_gflop bigint NOT NULL CHECK (remaining_gflop BETWEEN 0 AND initial_gflop),
    paid_fen        bigint NOT NULL CHECK (paid_fen >= 0),
    spent_fen       bigint NOT NULL CHECK (spent_fen BETWEEN 0 AND paid_fen),
    priority        integer NOT NULL,
    granted         boolean NOT NULL,
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz
);
CREATE INDEX lot_wallet_open ON lot (wallet_id) WHERE remaining_gflop > 0;

-- Pool.
CREATE TABLE device (
    device      text PRIMARY KEY,
    node        text NOT NULL,
    make        text NOT NULL,
    model       text NOT NULL,
    kind        text NOT NULL,
    position    integer NOT NULL,
    memory_mib  integer,
    state       text NOT NULL CHECK (state IN ('ready', 'down')),
    seen_at     timestamptz NOT NULL
);

CREATE TABLE rating (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device      text NOT NULL REFERENCES device,
    gflops      bigint NOT NULL CHECK (gflops > 0),
    precision   text NOT NULL,
    basis       text NOT NULL CHECK (basis IN ('nominal', 'calibrated')),
    method      text NOT NULL,
    spread      double precision,
    samples     integer,
    measured_at timestamptz NOT NULL
);
CREATE INDEX rating_latest ON rating (device, id DESC);

-- An operator's own figures for accelerators of the catalogue. Rows are only ever added; the last of a
-- device's field counts, and one without a value takes the override back. A `make` adds a card that is
-- not shipped.
CREATE TABLE catalog_override (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device     text NOT NULL,
    field      text NOT NULL,
    value      double precision CHECK (value > 0),
    source     text NOT NULL CHECK (source <> ''),
    set_by     text NOT NULL,
    created_at timestamptz NOT NULL,
    make       text CHECK (make <> '')
);
CREATE INDEX catalog_override_device ON catalog_override (device, id);

-- What a device sustains by class of work: for sizing, never for billing. The latest of a class counts.
CREATE TABLE calibration (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device      text NOT NULL REFERENCES device,
    class       text NOT NULL,
    software    text NOT NULL,
    precision   text NOT NULL,
    unit        text NOT NULL CHECK (unit IN ('gflops', 'gbs')),
    value       double precision NOT NULL CHECK (value > 0),
    low         double precision NOT NULL,
    high        double precision NOT NULL CHECK (high >= low),
    samples     integer NOT NULL CHECK (samples > 0),
    method      text NOT NULL,
    detail      jsonb NOT NULL DEFAULT '{}',
    measured_at timestamptz NOT NULL
);
CREATE INDEX calibration_latest ON calibration (device, class, id DESC);

-- Jobs.
CREATE TABLE upload (
    id          text PRIMARY KEY,
    org_id      text REFERENCES organisation,
    sha256      text NOT NULL,
    bytes       bigint NOT NULL,
    created_at  timestamptz NOT NULL,
    removed_at  timestamptz
);
CREATE INDEX upload_kept ON upload (created_at) WHERE removed_at IS NULL;

-- What each service tier costs, in thousandths of the price of a degree. A row never changes.
CREATE TABLE price_version (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tiers       jsonb NOT NULL,
    created_at  timestamptz NOT NULL
);

CREATE TABLE quote (
    id          text PRIMARY KEY,
    account_id  text NOT NULL REFERENCES account,
    member_id   text REFERENCES member,
    spec        jsonb NOT NULL,
    upload_id   text REFERENCES upload,
    state       text NOT NULL CHECK (state IN ('probing', 'ready', 'failed')),
    menu        jsonb,
    problem     jsonb,
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    price_version bigint REFERENCES price_version
);
CREATE INDEX quote_probing ON quote (id) WHERE state = 'probing';

CREATE TABLE job (
    id           text PRIMARY KEY,
    position     bigint GENERATED ALWAYS AS IDENTITY,
    account_id   text NOT NULL REFERENCES account,
    member_id    text REFERENCES member,
    name         text NOT NULL,
    spec         jsonb NOT NULL,
    upload_id    text REFERENCES upload,
    quote_id     text REFERENCES quote,
    plan_id      text,
    probe        boolean NOT NULL DEFAULT false,
    state        text NOT NULL CHECK (state IN ('queued', 'starting', 'running', 'stopping',
                                                'succeeded', 'failed', 'cancelled')),
    kind         text,
    model        text,
    count        integer NOT NULL CHECK (count > 0),
    priority     integer NOT NULL,
    grace_ms     integer NOT NULL,
    wall_ms      bigint,
    requeues     boolean NOT NULL,
    cancelled_by text,
    stop_reason  text,
    waiting      jsonb,
    balance_before_gflop numeric(38) NOT NULL,
    balance_after_gflop  numeric(38),
    submitted_at timestamptz NOT NULL,
    finished_at  timestamptz,
    files_removed_at timestamptz,
    tier_permille integer NOT NULL DEFAULT 1000 CHECK (tier_permille > 0),
    tier         text NOT NULL DEFAULT 'standard' CHECK (tier IN ('reserved', 'standard', 'spot')),
    expected_ms  bigint CHECK (expected_ms > 0),
    queued_at    timestamptz,
    claim        text[]
);
CREATE INDEX job_similar ON job (account_id, model, count, finished_at DESC)
    WHERE state = 'succeeded' AND NOT probe;
CREATE INDEX job_files ON job (finished_at)
    WHERE finished_at IS NOT NULL AND files_removed_at IS NULL;
CREATE INDEX job_open ON job (state)
    WHERE state NOT IN ('succeeded', 'failed', 'cancelled');
CREATE INDEX job_account ON job (account_id, position DESC);
CREATE INDEX job_quote ON job (quote_id) WHERE probe;

CREATE TABLE attempt (
    id               text PRIMARY KEY,
    job_id           text NOT NULL REFERENCES job,
    number           integer NOT NULL CHECK (number > 0),
    state            text NOT NULL CHECK (state IN ('starting', 'running', 'stopping', 'ended')),
    wallet_id        bigint NOT NULL REFERENCES ledger_account,
    limit_ids        bigint[] NOT NULL,
    devices          integer NOT NULL CHECK (devices > 0),
    make             text NOT NULL,
    model            text NOT NULL,
    kind             text NOT NULL,
    rating_gflops    bigint NOT NULL CHECK (rating_gflops > 0),
    rating_basis     text NOT NULL,
    isolation        text NOT NULL,
    stop_asked       text,
    cursor           bigint NOT NULL DEFAULT 0,
    held_ms          bigint NOT NULL DEFAULT 0,
    metered_ms       bigint NOT NULL DEFAULT 0,
    usage_seq        integer NOT NULL DEFAULT 0,
    lease_seq        integer NOT NULL DEFAULT 1,
    lease_held_ms    bigint NOT NULL,
    meter            jsonb NOT NULL DEFAULT '{}',
    end_reason       text,
    exit_code        integer,
    exit_signal      integer,
    end_text         text,
    created_at       timestamptz NOT NULL,
    started_at       timestamptz,
    ended_at         timestamptz,
    settled          boolean NOT NULL DEFAULT false,
    billed_gflops    bigint CHECK (billed_gflops > 0),
    UNIQUE (job_id, number)
) WITH (fillfactor = 50);
CREATE INDEX attempt_unsettled ON attempt (id) WHERE NOT settled;
CREATE UNIQUE INDEX attempt_one_live ON attempt (job_id) WHERE state <> 'ended';

-- Who had which device when, half-open. One live holder per device.
CREATE TABLE allocation (
    attempt_id  text NOT NULL REFERENCES attempt,
    device      text NOT NULL REFERENCES device,
    from_at     timestamptz NOT NULL,
    to_at       timestamptz CHECK (to_at >= from_at),
    PRIMARY KEY (attempt_id, device)
);
CREATE UNIQUE INDEX allocation_live ON allocation (device) WHERE to_at IS NULL;

-- A hold is a pending transfer of a job: opened once, resolved once. `(job_id, seq)` orders them.
CREATE TABLE hold (
    job_id         text NOT NULL,
    seq            integer NOT NULL CHECK (seq > 0),
    wallet_id      bigint NOT NULL,
    limit_ids      bigint[] NOT NULL,
    reserved_gflop bigint NOT NULL CHECK (reserved_gflop >= 0),
    opened_at      timestamptz NOT NULL,
    resolved_at    timestamptz,
    settled_gflop  bigint CHECK (settled_gflop BETWEEN 0 AND reserved_gflop),
    PRIMARY KEY (job_id, seq),
    CHECK ((resolved_at IS NULL) = (settled_gflop IS NULL))
);
CREATE UNIQUE INDEX hold_open ON hold (job_id) WHERE resolved_at IS NULL;

-- An accepted quote: what it caps, what was charged under it, what the centre bore, and what was
-- billed for more than it described (once `done_attempt` had reported that much).
CREATE TABLE binding (
    job_id         text PRIMARY KEY REFERENCES job,
    quote_id       text NOT NULL REFERENCES quote,
    plan_id        text NOT NULL,
    template       text NOT NULL,
    basis          text NOT NULL,
    work           double precision CHECK (work > 0),
    quoted_gflop   bigint NOT NULL CHECK (quoted_gflop >= 0),
    quoted_p50_s   double precision NOT NULL,
    quoted_p90_s   double precision NOT NULL,
    cap_gflop      bigint NOT NULL CHECK (cap_gflop >= 0),
    cap_fen        bigint NOT NULL CHECK (cap_fen >= 0),
    bears_gflop    bigint NOT NULL CHECK (bears_gflop >= 0),
    charged_gflop  bigint NOT NULL DEFAULT 0 CHECK (charged_gflop BETWEEN 0 AND cap_gflop),
    charged_fen    bigint NOT NULL DEFAULT 0 CHECK (charged_fen BETWEEN 0 AND cap_fen),
    borne_gflop    bigint NOT NULL DEFAULT 0 CHECK (borne_gflop >= 0),
    beyond_gflop   bigint NOT NULL DEFAULT 0 CHECK (beyond_gflop >= 0),
    beyond_fen     bigint NOT NULL DEFAULT 0 CHECK (beyond_fen >= 0),
    capped         boolean NOT NULL DEFAULT false,
    done_attempt   text REFERENCES attempt,
    done_ms        bigint CHECK (done_ms >= 0),
    accepted_at    timestamptz NOT NULL,
    CHECK ((done_attempt IS NULL) = (done_ms IS NULL))
);
CREATE INDEX binding_template ON binding (template, accepted_at);

-- Usage: half-open stretches of an attempt's register, each settled when it is written.
CREATE TABLE usage (
    attempt_id     text NOT NULL,
    seq            integer NOT NULL CHECK (seq > 0),
    hold_seq       integer NOT NULL,
    from_ms        bigint NOT NULL CHECK (from_ms >= 0),
    to_ms          bigint NOT NULL CHECK (to_ms > from_ms),
    held_gflop     bigint NOT NULL CHECK (held_gflop >= 0),
    settled_gflop  bigint NOT NULL CHECK (settled_gflop >= 0),
    overrun_gflop  bigint NOT NULL CHECK (overrun_gflop >= 0),
    transfer_id    text NOT NULL,
    borne_gflop    bigint NOT NULL DEFAULT 0 CHECK (borne_gflop >= 0),
    PRIMARY KEY (attempt_id, seq),
    CONSTRAINT usage_check1 CHECK (settled_gflop + overrun_gflop + borne_gflop = held_gflop)
);

-- What left a lot: for an attempt's usage, to another wallet's lot, or (both null) by expiry.
CREATE TABLE lot_use (
    transfer_id text NOT NULL,
    lot_id      text NOT NULL,
    attempt_id  text,
    gflop       bigint NOT NULL CHECK (gflop > 0),
    fen         bigint NOT NULL CHECK (fen >= 0),
    to_lot_id   text,
    CONSTRAINT one_way_out CHECK (attempt_id IS NULL OR to_lot_id IS NULL)
);
CREATE INDEX lot_use_attempt ON lot_use (attempt_id) WHERE attempt_id IS NOT NULL;
CREATE UNIQUE INDEX lot_use_to_lot ON lot_use (to_lot_id) WHERE to_lot_id IS NOT NULL;

-- What holds, usage and uses of lots refer to exists, and stays. Foreign keys in effect, checked
-- once a statement instead of once a row: a tick writes thousands of rows, and a key's own check
-- costs more than the row.
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

-- The same key, the same answer.
CREATE TABLE idempotency (
    actor        text NOT NULL,
    key          text NOT NULL,
    request_hash text NOT NULL,
    response     jsonb,
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (actor, key)
);
CREATE INDEX idempotency_age ON idempotency (created_at);

INSERT INTO ledger_account (path, unit, floor) VALUES
    ('house/issued', 'gflop', NULL), ('house/consumed', 'gflop', NULL),
    ('house/lapsed', 'gflop', NULL), ('house/loss', 'gflop', NULL),
    ('house/bank', 'fen', NULL), ('house/deferred', 'fen', NULL),
    ('house/revenue', 'fen', NULL), ('house/breakage', 'fen', NULL),
    ('house/borne', 'gflop', NULL);
INSERT INTO price_version (tiers, created_at)
VALUES ('{"reserved": 1000, "standard": 1000, "spot": 1000}', '2026-01-01T00:00:00Z');

-- What accounts are guaranteed of the pool, and what they and all below held of devices.
CREATE TABLE account_share (
    account_id     text PRIMARY KEY REFERENCES account,
    weight         double precision NOT NULL DEFAULT 1 CHECK (weight > 0),
    quota_devices  integer CHECK (quota_devices >= 0),
    borrow_devices integer CHECK (borrow_devices >= 0),
    usage_at       timestamptz,
    lend_devices   integer CHECK (lend_devices >= 0),
    usage_gflop    double precision NOT NULL DEFAULT 0
);

-- What each scheduling round saw and decided, one line of JSON each, without a gap in `n`. Only its
-- beginning is ever removed, up to an entry that has the whole sight.
CREATE TABLE round_log (
    n     bigint PRIMARY KEY CHECK (n > 0),
    at    timestamptz NOT NULL,
    whole boolean NOT NULL,
    line  text NOT NULL
);
CREATE INDEX round_log_whole ON round_log (n) WHERE whole;
