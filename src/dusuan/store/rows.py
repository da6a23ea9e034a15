"""Rows as the named queries return them. Amounts are whole GFLOP or fen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Org:
    """An organisation."""

    id: str
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class CatalogOverride:
    """An operator's figure for an accelerator; `value` None takes an earlier one back."""

    device: str
    field: str
    value: float | None
    source: str
    set_by: str
    created_at: datetime
    make: str | None


@dataclass(frozen=True, slots=True)
class Account:
    """A customer's account, with the ledger accounts that stand behind it.

    `lineage`: ids of the account and its ancestors, nearest first. `limit_ids`: their rollup rows.
    """

    id: str
    org_id: str
    parent_id: str | None
    path: str
    lineage: list[str]
    wallet_id: int
    cash_id: int
    spend_id: int
    limit_ids: list[int]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class AccountSeen(Account):
    """An account with the roles that one member has on it and on all above it."""

    roles: list[str]


@dataclass(frozen=True, slots=True)
class Member:
    """A person of an organisation."""

    id: str
    org_id: str
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Role:
    """A member's role on one account, which holds for all accounts below it."""

    account_id: str
    role: str


@dataclass(frozen=True, slots=True)
class Key:
    """An API key (never the key itself). `member_id` None: an operator's."""

    id: str
    member_id: str | None
    org_id: str | None
    hint: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class LedgerAccount:
    """One ledger balance."""

    id: int
    path: str
    unit: str
    posted_dr: int
    posted_cr: int
    pending_dr: int
    floor: int | None


@dataclass(frozen=True, slots=True)
class PackageRow:
    """A package on sale, one price version."""

    id: str
    name: str
    gflop: int
    price_fen: int
    valid_days: int | None
    priority: int


@dataclass(frozen=True, slots=True)
class LotRow:
    """A lot with its validity."""

    id: str
    wallet_id: int
    package_id: str | None
    kind: str
    initial_gflop: int
    remaining_gflop: int
    paid_fen: int
    spent_fen: int
    priority: int
    granted: bool
    created_at: datetime
    expires_at: datetime | None


class WalletShown(NamedTuple):
    """An account's wallet, cash and spending with one of its lots, or with none (`lot_id` None).

    `roles`: what one member has on the account and on all above it.
    """

    path: str
    org_id: str
    roles: list[str]
    wallet_path: str
    posted_dr: int
    posted_cr: int
    pending_dr: int
    floor: int | None
    cash_fen: int
    spent_dr: int
    spent_cr: int
    spent_pending_dr: int
    spent_floor: int | None
    lot_id: str | None
    wallet_id: int
    package_id: str | None
    kind: str
    initial_gflop: int
    remaining_gflop: int
    paid_fen: int
    spent_fen: int
    priority: int
    granted: bool
    created_at: datetime
    expires_at: datetime | None

    @property
    def lot(self) -> LotRow | None:
        """Its lot."""
        if self.lot_id is None:
            return None
        return LotRow(
            self.lot_id,
            self.wallet_id,
            self.package_id,
            self.kind,
            self.initial_gflop,
            self.remaining_gflop,
            self.paid_fen,
            self.spent_fen,
            self.priority,
            self.granted,
            self.created_at,
            self.expires_at,
        )


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A device with its latest rating, if it has one, and who holds it."""

    device: str
    node: str
    make: str
    model: str
    kind: str
    memory_mib: int | None
    state: str
    gflops: int | None
    precision: str | None
    basis: str | None
    method: str | None
    spread: float | None
    samples: int | None
    measured_at: datetime | None
    holder: str | None


@dataclass(frozen=True, slots=True)
class RatedDevice:
    """What a round reads of a device: its latest rating, if it has one, and not who holds it."""

    device: str
    node: str
    make: str
    model: str
    kind: str
    state: str
    gflops: int | None
    basis: str | None


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded work directory archive."""

    id: str
    org_id: str | None
    sha256: str
    bytes: int
    created_at: datetime
    removed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Quote:
    """A quote: a job priced before it runs."""

    id: str
    account_id: str
    member_id: str | None
    spec: Mapping[str, Any]
    upload_id: str | None
    state: str
    menu: Mapping[str, Any] | None
    problem: Mapping[str, Any] | None
    created_at: datetime
    expires_at: datetime
    price_version: int | None


@dataclass(frozen=True, slots=True)
class Job:
    """A job as submitted, and where it is now."""

    id: str
    position: int
    account_id: str
    account_path: str
    org_id: str
    member_id: str | None
    name: str
    spec: Mapping[str, Any]
    upload_id: str | None
    quote_id: str | None
    plan_id: str | None
    probe: bool
    state: str
    kind: str | None
    model: str | None
    count: int
    priority: int
    grace_ms: int
    wall_ms: int | None
    requeues: bool
    cancelled_by: str | None
    stop_reason: str | None
    waiting: Mapping[str, Any] | None
    balance_before_gflop: int
    balance_after_gflop: int | None
    submitted_at: datetime
    finished_at: datetime | None
    files_removed_at: datetime | None
    tier_permille: int
    tier: str
    expected_ms: int | None
    queued_at: datetime | None
    claim: list[str] | None


@dataclass(frozen=True, slots=True)
class JobSeen(Job):
    """A job with the roles that one member has on its account and on all above it."""

    roles: list[str]


class JobShown(NamedTuple):
    """A job as it is shown with one of its attempts, or with none (`attempt_id` None).

    `roles`: what one member has on its account and on all above it.
    """

    id: str
    position: int
    account_path: str
    org_id: str
    roles: list[str]
    name: str
    state: str
    stop_reason: str | None
    model: str | None
    devices: int
    priority: int
    quote_id: str | None
    plan_id: str | None
    waiting: Mapping[str, Any] | None
    submitted_at: datetime
    finished_at: datetime | None
    attempt_id: str | None
    number: int | None
    attempt_state: str | None
    held_ms: int | None
    end_reason: str | None
    exit_code: int | None
    exit_signal: int | None
    end_text: str | None
    isolation: str | None
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Queued:
    """What a scheduling round reads of a job that waits.

    `told`: a reason is written down; `held`: its first slice is set aside.
    """

    id: str
    position: int
    account_id: str
    kind: str | None
    model: str | None
    count: int
    priority: int
    grace_ms: int
    probe: bool
    stop_reason: str | None
    told: bool
    held: bool
    tier_permille: int
    tier: str
    wall_ms: int | None
    expected_ms: int | None
    requeues: bool
    claim: list[str] | None
    queued_at: datetime


@dataclass(frozen=True, slots=True)
class PlacedRow:
    """A job that has devices, and what a scheduling round reads of it."""

    attempt_id: str
    id: str
    account_id: str
    tier: str
    grace_ms: int
    wall_ms: int | None
    expected_ms: int | None
    requeues: bool
    probe: bool
    stop_asked: str | None
    since: datetime
    devices: list[str]


@dataclass(frozen=True, slots=True)
class Stamp:
    """Two that are alike were taken of the same devices and ratings."""

    devices: int
    written: int
    ratings: int


@dataclass(frozen=True, slots=True)
class ShareRow:
    """What an account is guaranteed and has used."""

    id: str
    parent_id: str | None
    path: str
    weight: float
    quota_devices: int | None
    borrow_devices: int | None
    lend_devices: int | None
    usage_gflop: float
    usage_at: datetime | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a job. `meter` is the fold of its journal; `settled`: nothing more is to post.

    `billed_gflops`: the rating times what its tier costs (None: the rating itself).
    """

    id: str
    job_id: str
    number: int
    state: str
    wallet_id: int
    limit_ids: list[int]
    devices: int
    make: str
    model: str
    kind: str
    rating_gflops: int
    rating_basis: str
    isolation: str
    stop_asked: str | None
    cursor: int
    held_ms: int
    metered_ms: int
    usage_seq: int
    lease_seq: int
    lease_held_ms: int
    meter: Mapping[str, Any]
    end_reason: str | None
    exit_code: int | None
    exit_signal: int | None
    end_text: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    settled: bool
    billed_gflops: int | None


@dataclass(frozen=True, slots=True)
class LiveCursor:
    """How far the journal of an attempt that has not ended was read, in the engine's own count."""

    id: str
    cursor: int


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold of a job, open while `resolved_at` is None."""

    job_id: str
    seq: int
    wallet_id: int
    limit_ids: list[int]
    reserved_gflop: int


@dataclass(frozen=True, slots=True)
class Binding:
    """An accepted quote: what was quoted, what it caps, and what has been charged and borne."""

    job_id: str
    quote_id: str
    plan_id: str
    template: str
    basis: str
    work: float | None
    quoted_gflop: int
    quoted_p50_s: float
    quoted_p90_s: float
    cap_gflop: int
    cap_fen: int
    bears_gflop: int
    charged_gflop: int
    charged_fen: int
    borne_gflop: int
    beyond_gflop: int
    beyond_fen: int
    capped: bool
    done_attempt: str | None
    done_ms: int | None
    accepted_at: datetime


@dataclass(frozen=True, slots=True)
class Id:
    """A single integer id."""

    id: int


@dataclass(frozen=True, slots=True)
class Name:
    """A single id that is text."""

    id: str


@dataclass(frozen=True, slots=True)
class Replay:
    """A remembered answer."""

    request_hash: str
    response: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class LeftRow:
    """What became of a job, and how its last attempt ended."""

    id: str
    state: str
    stop_reason: str | None
    finished_at: datetime | None
    end_reason: str | None
    stop_asked: str | None
    ended_at: datetime | None
    began_at: datetime | None


@dataclass(frozen=True, slots=True)
class RoundLine:
    """One line of the log of rounds."""

    n: int
    line: str
