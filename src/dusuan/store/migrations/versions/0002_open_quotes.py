"""What the loop asks at every turn (which quotes are being probed) is an index away."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """One partial index; nothing else changes."""
    op.execute("CREATE INDEX quote_probing ON quote (id) WHERE state = 'probing'")
