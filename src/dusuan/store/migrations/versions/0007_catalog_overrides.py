"""An operator's own figures for accelerators of the catalogue, with their history."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """A table whose rows are only ever added."""
    op.execute(
        "CREATE TABLE catalog_override ("
        " id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
        " device text NOT NULL,"
        " field text NOT NULL,"
        " value double precision CHECK (value > 0),"
        " source text NOT NULL CHECK (source <> ''),"
        " set_by text NOT NULL,"
        " created_at timestamptz NOT NULL)"
    )
    op.execute("CREATE INDEX catalog_override_device ON catalog_override (device, id)")
