"""Cards that only an operator knows."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """An override may name the make of a card that is not shipped, which adds it."""
    op.execute("ALTER TABLE catalog_override ADD COLUMN make text CHECK (make <> '')")
