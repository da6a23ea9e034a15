ALTER TABLE job ADD COLUMN tier text NOT NULL DEFAULT 'standard'
    CHECK (tier IN ('reserved', 'standard', 'spot'));
ALTER TABLE job ADD COLUMN expected_ms bigint CHECK (expected_ms > 0);
ALTER TABLE job ADD COLUMN queued_at timestamptz;
ALTER TABLE job ADD COLUMN claim text[];
UPDATE job SET tier = spec -> 'goal' ->> 'tier'
WHERE spec -> 'goal' ->> 'tier' IN ('reserved', 'spot');
CREATE INDEX job_similar ON job (account_id, model, count, finished_at DESC)
    WHERE state = 'succeeded' AND NOT probe;
CREATE TABLE account_share (
    account_id     text PRIMARY KEY REFERENCES account,
    weight         double precision NOT NULL DEFAULT 1 CHECK (weight > 0),
    quota_devices  integer CHECK (quota_devices >= 0),
    borrow_devices integer CHECK (borrow_devices >= 0),
    usage_ms       double precision NOT NULL DEFAULT 0,
    usage_at       timestamptz
);
