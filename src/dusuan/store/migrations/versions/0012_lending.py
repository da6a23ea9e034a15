"""How much of its quota an account lends; and use in GFLOP, where a fast device counts more."""

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Use so far was device-time: it counts as that of a device of mean rating."""
    op.execute(
        """
        ALTER TABLE account_share ADD COLUMN lend_devices integer CHECK (lend_devices >= 0);
        ALTER TABLE account_share ADD COLUMN usage_gflop double precision NOT NULL DEFAULT 0;
        UPDATE account_share SET usage_gflop = usage_ms / 1000 * coalesce(
            (SELECT avg(gflops) FROM (SELECT DISTINCT ON (device) gflops FROM rating
                                      ORDER BY device, id DESC) AS latest), 1);
        ALTER TABLE account_share DROP COLUMN usage_ms;
        """
    )
