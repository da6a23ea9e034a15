"""The log of scheduling rounds, from which a day can be replayed."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """One table."""
    op.execute(
        """
        CREATE TABLE round_log (
            n     bigint PRIMARY KEY CHECK (n > 0),
            at    timestamptz NOT NULL,
            whole boolean NOT NULL,
            line  text NOT NULL
        );
        CREATE INDEX round_log_whole ON round_log (n) WHERE whole;
        """
    )
