"""Requests and answers as OpenAPI describes them. Amounts are whole GFLOP or fen.

Request models refuse fields they do not know. Answer models name the fields that keep their name;
an answer may hold more.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

INT64_MAX = 2**63 - 1
DAYS_MAX = 36_500


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("a NUL character cannot be part of it")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("half of a character (a lone surrogate) cannot be part of it")
    return text


Text = Annotated[str, Field(max_length=1_000), AfterValidator(_storable)]
JobText = Annotated[str, AfterValidator(_storable)]  # the verb itself limits its size
Gflop = Annotated[int, Field(ge=0, le=INT64_MAX)]
Fen = Annotated[int, Field(ge=0, le=INT64_MAX)]


class Body(BaseModel):
    """A request."""

    model_config = ConfigDict(extra="forbid", strict=True)


class View(BaseModel):
    """An answer."""

    model_config = ConfigDict(extra="allow")


# Requests


class NewOrg(Body):
    name: Text


class NewAccount(Body):
    path: Text
    pooled: bool = False
    budget_gflop: Gflop | None = None


class Budget(Body):
    path: Text
    budget_gflop: Gflop | None


class NewOverride(Body):
    device: Text
    field: Text
    value: Annotated[float | None, Field(gt=0, le=1e7, allow_inf_nan=False)]
    source: Annotated[Text, Field(min_length=1)]
    make: Annotated[Text, Field(min_length=1)] | None = None


class Quota(Body):
    path: Text
    quota: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    borrow: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    lend: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    weight: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 1.0


class NewMember(Body):
    name: Text
    account: Text
    role: Literal["auditor", "member", "admin", "owner"]


class NewKey(Body):
    org: Text
    member: Text
    expires_at: Annotated[AwareDatetime | None, Field(strict=False)] = None
    expires_in_s: Annotated[int | None, Field(gt=0, le=DAYS_MAX * 86_400)] = None


class NewPackage(Body):
    name: Text
    gflop: Annotated[int, Field(gt=0, le=INT64_MAX)]
    price_fen: Fen
    valid_days: Annotated[int, Field(gt=0, le=DAYS_MAX)] | None = None
    priority: Annotated[int, Field(ge=0, le=1_000_000)] = 100


class NewPurchase(Body):
    account: Text
    package: Text


class NewPayment(Body):
    account: Text
    fen: Annotated[int, Field(gt=0, le=INT64_MAX)]
    reference: Text = ""


Permille = Annotated[int, Field(gt=0, le=100_000)]


class NewPrices(Body):
    reserved: Permille | None = None
    standard: Permille | None = None
    spot: Permille | None = None


class NewTransfer(Body):
    account: Text
    to: Text
    gflop: Annotated[int, Field(gt=0, le=INT64_MAX)]


class JobFile(Body):
    """A job file's text; `name` is used where it names none."""

    job: JobText
    name: Text = "job"


class NewQuote(JobFile):
    account: Text
    upload_id: Text | None = None
    what_if: bool = False


class JobFromFile(JobFile):
    account: Text
    upload_id: Text | None = None


class JobFromQuote(Body):
    quote_id: Text
    plan_id: Text | None = None


# Answers


class Made(View):
    id: str
    path: str


class MadeKey(Made):
    key: str
    expires_at: str | None


class KeyView(View):
    """A key without its secret; `hint` is how it begins."""

    id: str
    member: str | None
    hint: str
    state: Literal["valid", "expired", "revoked"]
    created_at: str
    expires_at: str | None
    revoked_at: str | None


class KeyList(View):
    items: list[KeyView]


class Whoami(View):
    operator: bool
    member_id: str | None
    org_id: str | None
    key_id: str


class DeviceView(View):
    device: str
    node: str
    make: str
    model: str
    rating_gflops: int | None
    rating_basis: str | None
    measured_at: str | None
    spread: float | None
    state: str


class PoolView(View):
    devices: list[DeviceView]
    learnt: list[dict[str, Any]]
    alarms: list[str]


class PathList(View):
    items: list[Made]


class MemberView(View):
    id: str
    name: str
    roles: list[dict[str, Any]]


class MemberList(View):
    items: list[MemberView]


class PackageView(View):
    id: str
    name: str
    gflop: int
    degrees: str
    price_fen: int
    valid_days: int | None


class PackageList(View):
    packages: list[PackageView]


class PaymentView(View):
    id: str
    path: str
    fen: int


class TransferView(View):
    id: str
    path: str
    to: str
    gflop: int
    lots: list[str]


class LotView(View):
    id: str
    kind: str
    remaining_gflop: int
    expires_at: str | None


class WalletView(View):
    account: str
    available_gflop: int
    available_degrees: str
    pending_gflop: int
    cash_fen: int
    lots: list[LotView]


class UploadView(View):
    upload_id: str
    sha256: str
    bytes: int


class PlanView(View):
    plan_id: str
    device: str | None
    count: int
    tier: str
    site: str
    held_degrees_p50: str | None
    price_fen_p50: int | None
    price_fen_max: int | None
    finish_p50_s: float | None
    finish_p90_s: float | None
    energy_kwh: float | None
    co2_kg: float | None


class QuoteView(View):
    quote_id: str
    state: str
    plans: list[PlanView]
    excluded: list[dict[str, Any]]
    chosen: str | None
    problem: dict[str, Any] | None
    expires_at: str


class OverridesView(View):
    overrides: list[dict[str, Any]]


class AcceleratorView(View):
    name: str
    make: str
    origin: str
    figures: dict[str, dict[str, Any]]
    overrides: list[dict[str, Any]]
    rating_gflops: int | None
    quotable: bool


class PriceView(View):
    price_version: int | None
    tiers: dict[str, int]


class TemplateView(View):
    organisation: str
    template: str
    quotes: int
    bias: float
    error: float
    p50_coverage: float
    p90_coverage: float
    centre_gflop: int
    centre_share: float


class QuoteReport(View):
    templates: list[TemplateView]
    all: dict[str, Any] | None


class CheckedView(View):
    name: str
    workdir: str | None
    steps: float | None
    sized: bool
    warnings: list[str]


class SubmittedView(View):
    job_id: str
    state: str
    warnings: list[str]


class AttemptView(View):
    attempt_id: str
    number: int
    state: str
    held_ms: int
    end_reason: str | None
    exit_code: int | None


class JobView(View):
    job_id: str
    name: str
    account: str
    state: str
    stop_reason: str | None
    waiting: dict[str, Any] | None
    attempts: list[AttemptView]


class JobList(View):
    jobs: list[JobView]
    next: int | None


class RemedyView(View):
    change: Literal["balance", "count", "device", "tier", "wall_time", "without", "borrow", "lend"]
    value: str
    text: str
    stops: int


class WhyView(View):
    job_id: str
    state: str
    code: str
    text: str
    remedy: str
    remedies: list[RemedyView] | None = None
    expected_start_at: str | None = None


class MeterView(View):
    job_id: str
    state: str
    held_ms: int
    held_gflop: int
    held_degrees: str
    cost_fen: int
    balance_left_s: float | None


class ReceiptView(View):
    job_id: str
    device: str | None
    count: int
    rating_gflops: int | None
    rating_basis: str | None
    meter_basis: str
    held_ms: int
    held_gflop: int
    delivered_gflop: int | None
    delivered_source: str | None
    lots: list[dict[str, Any]]
    charge_fen: int
    balance_before_gflop: int
    balance_after_gflop: int | None
    isolation: str | None
    result: dict[str, Any]


class OutputFile(View):
    path: str
    bytes: int


class OutputList(View):
    job_id: str
    files: list[OutputFile]


class CheckView(View):
    name: str
    ok: bool
    subjects: list[Any]


class AuditView(View):
    ok: bool
    checks: list[CheckView]


class ProblemView(View):
    """Problem details, RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    remedy: str
    instance: str
    line: int | None = None
