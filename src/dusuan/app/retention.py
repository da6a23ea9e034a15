"""Removing what is kept for a while only: files of ended jobs, uploads, old answers, rounds.

What is owed or was paid stays for good: ledger, usage, receipts. Files go first and are marked as
gone after, so a crash in between only means that they are removed once more.
"""

from __future__ import annotations

from datetime import timedelta

from dusuan.app.context import Platform
from dusuan.store.database import Tx
from dusuan.store.rows import Attempt, Name

BATCH = 100
ANSWERS_BATCH = 10_000


def sweep(platform: Platform) -> int:
    """Remove one batch of each kind; how much there was. It may take long: not for the loop."""
    files = _clear_jobs(platform) + _clear_uploads(platform)
    return files + _forget_answers(platform) + _forget_rounds(platform)


def _clear_jobs(platform: Platform) -> int:
    now = platform.now()
    before = now - timedelta(seconds=platform.limits.files_kept_s)
    with platform.store.transaction() as tx:
        jobs = [row.id for row in tx.all(Name, "jobs_to_clear", before=before, limit=BATCH)]
        attempts = {job: _attempts_of(tx, job) for job in jobs}
    for job, names in attempts.items():
        platform.engine.remove_files(job, names)
        with platform.store.transaction() as tx:
            tx.run("job_cleared", id=job, now=now)
    return len(jobs)


def _attempts_of(tx: Tx, job_id: str) -> list[str]:
    return [attempt.id for attempt in tx.all(Attempt, "attempts_of_job", job_id=job_id)]


def _clear_uploads(platform: Platform) -> int:
    now = platform.now()
    before = now - timedelta(seconds=platform.limits.files_kept_s)
    with platform.store.transaction() as tx:
        rows = tx.all(Name, "uploads_to_clear", before=before, now=now, limit=BATCH)
    for row in rows:
        (platform.uploads / f"{row.id}.tar.gz").unlink(missing_ok=True)
        with platform.store.transaction() as tx:
            tx.run("upload_cleared", id=row.id, now=now)
    return len(rows)


def _forget_answers(platform: Platform) -> int:
    before = platform.now() - timedelta(seconds=platform.limits.answers_kept_s)
    with platform.store.transaction() as tx:
        return tx.run("replays_forget", before=before, limit=ANSWERS_BATCH)


def _forget_rounds(platform: Platform) -> int:
    """The beginning of the log of rounds, so that what is left begins with a whole sight."""
    limits = platform.limits
    before = platform.now() - timedelta(seconds=limits.rounds_kept_s)
    with platform.store.transaction() as tx:
        return tx.run("rounds_forget", before=before, most=limits.rounds_kept, limit=ANSWERS_BATCH)
