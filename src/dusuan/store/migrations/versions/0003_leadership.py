"""Who leads, and whose files may go: one row about the centre, and a mark on jobs."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """A table of one row; a column, and the index by which what is old is found."""
    op.execute(
        "CREATE TABLE centre ("
        " id boolean PRIMARY KEY DEFAULT true CHECK (id),"
        " data_dir text,"
        " term bigint NOT NULL DEFAULT 0 CHECK (term >= 0))"
    )
    op.execute("INSERT INTO centre DEFAULT VALUES")
    op.execute("ALTER TABLE job ADD COLUMN files_removed_at timestamptz")
    op.execute(
        "CREATE INDEX job_files ON job (finished_at)"
        " WHERE finished_at IS NOT NULL AND files_removed_at IS NULL"
    )
    op.execute("CREATE INDEX idempotency_age ON idempotency (created_at)")
