"""Which uploads have been removed, so that nobody looks for them again."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """One column, and the index by which what is old is found."""
    op.execute("ALTER TABLE upload ADD COLUMN removed_at timestamptz")
    op.execute("CREATE INDEX upload_kept ON upload (created_at) WHERE removed_at IS NULL")
