"""Tiers, quotas and expected times for the scheduler."""

from pathlib import Path
from typing import Any, cast

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Jobs that exist keep the tier that their files name."""
    text = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    # Many statements at once go through the driver itself: SQLAlchemy would prepare them as one.
    driver = cast(Any, op.get_bind().connection.driver_connection)
    driver.execute(text)
