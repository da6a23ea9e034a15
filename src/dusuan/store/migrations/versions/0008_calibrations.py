"""What devices sustain by class of work, with an interval and where each figure is from."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """One table; ratings, which bill, stay as they are."""
    op.execute(
        """
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
        """
    )
