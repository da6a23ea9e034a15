"""Cards that only an operator knows."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """An override may name the make of a card that is not shipped, which adds it."""
    op.execute("ALTER TABLE catalog_override ADD COLUMN make text CHECK (make <> '')")
