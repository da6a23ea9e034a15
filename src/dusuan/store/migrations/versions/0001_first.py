"""The first schema."""

from pathlib import Path
from typing import Any, cast

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create everything. The SQL file is frozen: later changes are later revisions."""
    text = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    # Many statements at once go through the driver itself: SQLAlchemy would prepare them as one.
    driver = cast(Any, op.get_bind().connection.driver_connection)
    driver.execute(text)
