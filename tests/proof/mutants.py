"""Does the proof notice? Faults put into a copy of the ledger, one at a time.

    python -m tests.proof.mutants [--steps 1500] [NAME ...]

Each must make the platform and the auditor disagree within `--steps` steps (in one of three
histories). Prints what each was noticed by; exits 1 when one was not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SQL = "store/migrations/versions/"


@dataclass(frozen=True)
class Fault:
    """`old` in `file` becomes `new`."""

    file: str
    old: str
    new: str


FAULTS = {
    "an entry is lost": Fault(
        "store/ledger.py", "entries = draft.entries()", "entries = draft.entries()[:-2]"
    ),
    "used work is charged twice": Fault(
        "store/queries/ledger.sql",
        "SET metered_ms = d.metered_ms,",
        "SET metered_ms = a.metered_ms,",
    ),
    "lots burn latest expiry first": Fault(
        "core/ledger/lots.py", "else lot.expires_ms,", "else -lot.expires_ms,"
    ),
    "paid lots burn before granted ones": Fault(
        "core/ledger/lots.py", "not lot.granted,", "lot.granted,"
    ),
    "rank is not looked at": Fault("core/ledger/lots.py", "            lot.priority,\n", ""),
    "a hold is opened without looking at what is left": Fault(
        "core/ledger/holds.py", "available < gflop", "available < 0"
    ),
    "only the nearest ceiling counts": Fault(
        "app/tenants.py",
        "limit_ids=[spend, *(parent.limit_ids if parent else [])]",
        "limit_ids=[spend]",
    ),
    "usage is rounded up": Fault(
        "core/units.py",
        "return rating_gflops * held_ms // MS_PER_SECOND",
        "return -(-rating_gflops * held_ms // MS_PER_SECOND)",
    ),
    "usage is rounded interval by interval": Fault(
        "core/metering/usage.py",
        "units.held_gflop(rating_gflops, held_ms) - units.held_gflop(rating_gflops, metered_ms)",
        "units.held_gflop(rating_gflops, held_ms - metered_ms)",
    ),
    "fen are cut instead of rounded": Fault(
        "core/units.py", "return quotient + (1 if", "return quotient + (0 if"
    ),
    "a lease is one millisecond longer": Fault(
        "core/units.py", "* MS_PER_SECOND - 1) // rating", "* MS_PER_SECOND) // rating"
    ),
    "the customer pays for overrun": Fault(
        "core/ledger/tick.py", "min(used, claim.reserved_gflop)", "used"
    ),
    "what an ended job had set aside stays": Fault(
        "core/ledger/tick.py", "    if claim.ended:\n        return 0\n", ""
    ),
    "the last to start is served first": Fault(
        "core/ledger/tick.py",
        "    for i, s in enumerate(settled):\n        if extra[i]:",
        "    for i, s in reversed(list(enumerate(settled))):\n        if extra[i]:",
    ),
    "expiry takes what is set aside": Fault(
        "core/ledger/tick.py", "balances.left(wallet) or 0)", "balances[wallet].posted)"
    ),
    "expiry is a millisecond late": Fault(
        "core/ledger/lots.py", "lot.expires_ms > now_ms", "lot.expires_ms >= now_ms"
    ),
    "a transfer takes what jobs have set aside": Fault(
        "app/wallets.py",
        "available = max(balances.left(account.wallet_id) or 0, 0)",
        "available = balances[account.wallet_id].posted",
    ),
    "a transfer makes degrees last for ever": Fault(
        "store/queries/ledger.sql", "l.created_at, l.expires_at\n", "l.created_at, NULL\n"
    ),
    "moved degrees cost nothing": Fault(
        "store/queries/ledger.sql", "d.gflop, d.gflop, d.fen, 0,", "d.gflop, d.gflop, 0, 0,"
    ),
    "a cancelled job keeps its ceiling's share": Fault(
        "core/ledger/holds.py",
        "for account in (wallet, *limits):\n        balances.change(account, pending=-gflop)",
        "for account in (wallet,):\n        balances.change(account, pending=-gflop)",
    ),
    "a repeated request is done again": Fault(
        "app/once.py", "    if key is None:", "    if key is None or True:"
    ),
    "a late record takes the register back": Fault(
        "core/metering/usage.py", "held_ms=max(meter.held_ms, record.held_ms)",
        "held_ms=record.held_ms",
    ),
    "nobody waits for another's balance": Fault(
        "store/queries/ledger.sql", "ORDER BY id FOR NO KEY UPDATE", "ORDER BY id"
    ),
    "a purchase is earned at once": Fault(
        "core/ledger/purchases.py",
        "draft.move(payer, house.deferred, package.price_fen)",
        "draft.move(payer, house.revenue, package.price_fen)",
    ),
    "a single transfer posts one more": Fault(
        SQL + "0005_transfers.sql",
        "SET posted_cr = l.posted_cr + amount",
        "SET posted_cr = l.posted_cr + amount + 1",
    ),
    "a budget counts from nothing": Fault(
        "app/tenants.py", "-(spent + budget_gflop)", "-budget_gflop"
    ),
}  # fmt: skip


def noticed(fault: Fault, steps: int) -> str:
    """What the proof said of a copy with the fault; empty when it said nothing."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copytree(ROOT / "src/dusuan", copy / "dusuan")
        file = copy / "dusuan" / fault.file
        text = file.read_text()
        if fault.old not in text:
            raise SystemExit(f"{fault.file} has no longer: {fault.old}")
        file.write_text(text.replace(fault.old, fault.new, 1))
        environment = os.environ | {"PYTHONPATH": f"{copy}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
        for number in range(3):
            command = [sys.executable, "-m", "tests.proof.run", "--history", str(number)]
            command += ["--steps", str(steps), "--seed", "5"]
            done = subprocess.run(
                command, cwd=copy, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                return done.stderr.strip().splitlines()[-1]
    return ""


def main() -> int:
    """Try every fault, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_500)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    missed = 0
    for name in options.names or FAULTS:
        said = noticed(FAULTS[name], options.steps)
        missed += not said
        print(f"{'noticed' if said else 'NOT NOTICED'}: {name}: {said[:160]}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
