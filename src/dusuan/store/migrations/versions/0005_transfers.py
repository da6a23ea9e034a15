"""Transfers between accounts; references of the ledger's largest tables checked in sets."""

from pathlib import Path
from typing import Any, cast

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Rows that exist keep the references that foreign keys have checked until now."""
    text = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    # Many statements at once go through the driver itself: SQLAlchemy would prepare them as one.
    driver = cast(Any, op.get_bind().connection.driver_connection)
    driver.execute(text)
