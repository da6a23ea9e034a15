"""Accepted quotes bind: what they cap, what was charged under them, what the centre bore."""

from alembic import op

revision = "0004"
down_revision = "0003"

_STATEMENTS = """
CREATE TABLE price_version (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tiers       jsonb NOT NULL,
    created_at  timestamptz NOT NULL
);
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
ALTER TABLE quote ADD COLUMN price_version bigint REFERENCES price_version;
ALTER TABLE attempt ADD COLUMN billed_gflops bigint CHECK (billed_gflops > 0);
ALTER TABLE job ADD COLUMN tier_permille integer NOT NULL DEFAULT 1000 CHECK (tier_permille > 0);
ALTER TABLE usage DROP CONSTRAINT usage_check1;
ALTER TABLE usage ADD COLUMN borne_gflop bigint NOT NULL DEFAULT 0 CHECK (borne_gflop >= 0);
ALTER TABLE usage ADD CONSTRAINT usage_check1
    CHECK (settled_gflop + overrun_gflop + borne_gflop = held_gflop);
INSERT INTO ledger_account (path, unit, floor) VALUES ('house/borne', 'gflop', NULL);
INSERT INTO price_version (tiers, created_at)
VALUES ('{"reserved": 1000, "standard": 1000, "spot": 1000}', '2026-01-01T00:00:00Z');
"""


def upgrade() -> None:
    """Tables, columns and the centre's account of what it bore."""
    op.execute(_STATEMENTS)
