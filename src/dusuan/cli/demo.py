"""`dusuan demo`: the whole way of a job on this machine, told step by step and checked.

It is a client like any other: all it does are API calls that anyone may make. Where the platform
does not do what is promised, it fails.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.text import Text

import dusuan
from dusuan.cli import follow, jobfile, quoting, render
from dusuan.cli.client import Client
from dusuan.cli.commands_jobs import fetch
from dusuan.cli.failures import Failure
from dusuan.cli.launcher import LauncherError
from dusuan.cli.session import Session

Doc = dict[str, Any]
ACCURACY_MIN = 0.95
PACK = "demo-pack"
STEP_GFLOP = 4.295  # one step of examples/checkpoint: 16 products of 512 x 512 matrices
LONG_S = 17.0  # how long the job that outlives its balance (of 9 to 11 s) would run
SHORT_STEPS = 40
GRACE_S = 1
FIRST_SLICE_S = GRACE_S + 5  # what has to be set aside before such a job starts
PATIENCE_S = 180.0
POLL_S = 0.25
PULSE_S = 2.0


def examples() -> Path:
    """Where the example jobs are: in the checkout, or beside the installed package."""
    package = Path(dusuan.__file__).parent
    for folder in (package / "examples", package.parents[1] / "examples"):
        if (folder / "digits" / "job.yaml").is_file():
            return folder
    raise Failure("no_examples", "the example jobs are not here", "run it from a checkout")


class Demo:
    """One run of the story. What it saw is kept in `seen`, which is also its JSON answer."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._folder = session.data_dir / "demo"
        self._member = session
        self._operator: Client
        self.seen: Doc = {}

    def run(self) -> Doc:
        """Tell it all. Raises `Failure` where anything is not as promised."""
        began_s = time.monotonic()
        with self._platform():
            self._pool()
            self._customer()
            self._packages()
            self._quote()
            self._train()
            self._receipt()
            self._run_short()
            self._top_up()
            self._audit()
        self.seen["took_s"] = round(time.monotonic() - began_s, 1)
        self._say(f"\nAll as promised, in {self.seen['took_s']} s. The receipt is in {self._file}.")
        return self.seen

    # --- telling -----------------------------------------------------------------------------

    def _head(self, text: str) -> None:
        if not self._session.as_json:
            self._session.out.print(Text(f"\n{text}", style="bold"))

    def _say(self, text: str) -> None:
        if not self._session.as_json:
            self._session.out.print(Text(text))

    def _draw(self, drawn: RenderableType) -> None:
        if not self._session.as_json:
            self._session.out.print(drawn)

    @property
    def _file(self) -> Path:
        return self._folder / "receipt.json"

    # --- the story ---------------------------------------------------------------------------

    @contextmanager
    def _platform(self) -> Iterator[None]:
        """A platform on the data directory; one that was already running is left running."""
        self._head("1  The platform")
        launcher, data = self._session.setup.launcher, self._session.data_dir
        try:
            started, ours = launcher.up(data, 0, None, True, self._session.say), True
        except LauncherError as error:
            if error.code != "already_running":
                raise
            started, ours = json.loads((data / "platform.json").read_text()), False
        self.seen["platform"] = {name: started[name] for name in ("url", "data_dir")}
        self._say(f"dusuan answers at {started['url']}")
        key = (data / "operator.key").read_text().strip()
        self._operator = Client(started["url"], key, self._session.setup.new_key)
        try:
            yield
        except BaseException:
            if ours:
                with suppress(LauncherError):  # what went wrong first is what has to be told
                    launcher.down(data)
            raise
        if ours:
            launcher.down(data)
            self._say("the platform is stopped")

    def _pool(self) -> None:
        pool = self._operator.get("/v1/pool")
        if any(d["rating_gflops"] is None for d in pool["devices"]):
            with self._session.busy("measuring the devices"):
                pool = self._operator.ask("/v1/pool/calibrate")
        self._draw(render.pool(pool))
        rated = [d for d in pool["devices"] if d["rating_gflops"] is not None]
        _promise(bool(rated), "the pool has a device with a measured rating")
        same = [d for d in rated if d["model"] == rated[0]["model"]]
        self._devices = len(same)
        # The centre meters a model at the lower median of its devices' ratings.
        self._rate = sorted(d["rating_gflops"] for d in same)[(len(same) - 1) // 2]
        self.seen["pool"] = pool

    def _customer(self) -> None:
        """An organisation, two accounts below it, and its owner with a key."""
        self._head("2  A customer")
        taken = {item["path"] for item in self._operator.get("/v1/orgs")["items"]}
        numbered = (f"acme-{n}" for n in range(2, 1_000_000))
        org = "acme" if "acme" not in taken else next(n for n in numbered if n not in taken)
        self._accounts = (f"{org}/vision", f"{org}/night-shift")
        self._operator.post("/v1/orgs", {"name": org})
        for path in self._accounts:
            self._operator.post("/v1/accounts", {"path": path})
        owner = {"name": "mei", "account": org, "role": "owner"}
        self._operator.post("/v1/members", owner)
        key = self._operator.ask("/v1/keys", {"org": org, "member": "mei"})["key"]
        url = self.seen["platform"]["url"]
        self._member = self._session.acting(Client(url, key, self._session.setup.new_key))
        self._say(f"{org} has the accounts {' and '.join(self._accounts)}; mei owns them")
        self.seen["organisation"] = {"path": org, "accounts": list(self._accounts)}

    def _packages(self) -> None:
        """The operator records a payment; the member buys degrees with it."""
        counts = {1 << n for n in range(self._devices.bit_length())} | {self._devices}
        tried = sum(count for count in counts if count <= self._devices)
        account = self._accounts[0]
        pack = self._pack_of(self._rate * (10 * tried + 90), PACK)
        self._buy(account, pack)
        wallet = self._member.client.get("/v1/wallet", account=account)
        _promise(wallet["available_gflop"] >= pack["gflop"], "what was bought is in the wallet")
        self._draw(render.wallet(wallet))
        self.seen["wallet"] = wallet

    def _pack_of(self, gflop: int, name: str) -> Doc:
        """The demo's package, or on a large pool one of its price that is large enough."""
        packs: list[Doc] = self._operator.get("/v1/packages")["packages"]
        known = next((p for p in packs if p["name"] == PACK), None)
        if known is not None and name == PACK and known["gflop"] >= gflop:
            return known
        fen, per = (known["price_fen"], known["gflop"]) if known else (2_000, 20_000)
        body = {
            "name": f"{name}-large" if name == PACK else name,
            "gflop": gflop,
            "price_fen": -(-gflop * fen // per),
            "valid_days": 30,
        }
        return self._operator.post("/v1/packages", body)

    def _buy(self, account: str, pack: Doc) -> None:
        paid = {"account": account, "fen": pack["price_fen"], "reference": "demo"}
        self._operator.post("/v1/payments", paid)
        bought = {"account": account, "package": pack["name"]}
        self._member.client.post("/v1/purchases", bought)
        price = render.yuan(pack["price_fen"])
        self._say(f"{account} paid {price}; mei bought {pack['name']} with it")

    def _quote(self) -> None:
        """The job is measured on this machine, and the menu shows what that means."""
        self._head("3  A training job: which plan?")
        file = examples() / "digits" / "job.yaml"
        job = jobfile.prepare(
            self._member, jobfile.read(file), "digits", "examples/digits/job.yaml", file.parent
        )
        quote = quoting.quoted(self._member, job, self._accounts[0])
        self._draw(render.quote(quote))
        _promise(quote["chosen"] is not None, "a quote without a goal picks the cheapest plan")
        self.seen["quote"] = quote
        self._tighter(quote)

    def _tighter(self, quote: Doc) -> None:
        """A deadline that the cheapest plan misses picks another one."""
        by_id = {plan["plan_id"]: plan for plan in quote["plans"]}
        cheapest = by_id[quote["chosen"]]
        fastest = min(quote["plans"], key=lambda plan: plan["finish_p90_s"])
        if fastest["plan_id"] == cheapest["plan_id"]:
            self._say("on this machine one plan is both the cheapest and the fastest")
            return
        deadline_s = round((fastest["finish_p90_s"] + cheapest["finish_p90_s"]) / 2, 3)
        path = f"/v1/quotes/{quote['quote_id']}"
        other = self._member.client.get(path, deadline_s=deadline_s)["chosen"]
        _promise(other not in (None, cheapest["plan_id"]), "a tighter deadline picks another plan")
        self._say(f"no deadline: {cheapest['plan_id']}; within {deadline_s:.1f} s: {other}")
        self.seen["tighter"] = {"deadline_s": deadline_s, "chosen": other}

    def _train(self) -> None:
        quote = self.seen["quote"]
        body = {"quote_id": quote["quote_id"], "plan_id": quote["chosen"]}
        job_id = self._member.client.post("/v1/jobs", body)["job_id"]
        self._head(f"4  {job_id} runs on {quote['chosen']}")
        job = follow.follow(self._member, job_id, pulse_s=PULSE_S)
        _promise(job["state"] == "succeeded", f"the training succeeds (it {job['state']})")
        self.seen["job"] = job

    def _receipt(self) -> None:
        """What came out, what it cost, and the proof of both."""
        client, job_id = self._member.client, self.seen["job"]["job_id"]
        receipt = client.get(f"/v1/jobs/{job_id}/receipt")
        accuracy = receipt["result"].get("accuracy", 0.0)
        self._say(f"held-out accuracy: {accuracy:.4f}")
        _promise(accuracy >= ACCURACY_MIN, f"the accuracy is at least {ACCURACY_MIN}")
        listed = client.get(f"/v1/jobs/{job_id}/outputs")
        _promise(bool(listed["files"]), "the job left its model")
        fetch(self._member, listed, self._folder / job_id)
        self._draw(render.outputs(listed))
        self._say(f"fetched into {self._folder / job_id}")
        self._head("5  The receipt")
        self._draw(render.receipt(receipt))
        spent = receipt["balance_before_gflop"] - receipt["balance_after_gflop"]
        _promise(spent == receipt["charged_gflop"], "the balance fell by exactly what was charged")
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(receipt, ensure_ascii=False, indent=2) + "\n")
        self.seen["outputs"], self.seen["receipt"] = listed["files"], receipt

    # --- a balance that does not reach --------------------------------------------------------

    def _run_short(self) -> None:
        """Two jobs side by side on a balance that one of them outlives."""
        self._head("6  Two jobs, and a balance that does not reach")
        account = self._accounts[1]
        gflop = self._rate * (2 * FIRST_SLICE_S) + self._rate // 4 + 1
        self._buy(account, self._pack_of(gflop, "demo-small"))
        upload_id = self._upload()
        self._long = self._submit(account, upload_id, "long", self._long_steps())
        brief = self._submit(account, upload_id, "brief", SHORT_STEPS)
        stopped = self._watch([self._long, brief], _waits_after_attempt)
        waiting = stopped["waiting"]
        _promise(waiting["code"] == "balance", "the job that outlives its balance waits for it")
        wallet = self._member.client.get("/v1/wallet", account=account)
        _promise(wallet["balance_gflop"] >= 0, "no balance is below zero")
        self._draw(render.job(stopped))
        brief_job = self._watch([brief], lambda job: job["state"] in _FINAL)
        _promise(brief_job["state"] == "succeeded", "the shorter job is done")
        self.seen["stopped"], self.seen["brief"] = stopped, brief_job

    def _long_steps(self) -> int:
        """Steps for a job of at least `LONG_S` on one device, however fast it turns out to be."""
        receipt = self.seen["receipt"]
        elapsed_s: float = receipt["held_ms"] / 1_000 / receipt["count"]
        speed: float = (receipt["delivered_gflop"] or 0) / max(elapsed_s, 0.001)
        return max(100, math.ceil(LONG_S * max(speed, float(self._rate)) / STEP_GFLOP))

    def _upload(self) -> str | None:
        folder = examples() / "checkpoint"
        text = _work("long", 1) + "workdir: .\n"
        return jobfile.prepare(self._member, text, "long", "examples/checkpoint", folder).upload_id

    def _submit(self, account: str, upload_id: str | None, name: str, steps: int) -> str:
        job = {"account": account, "job": _work(name, steps), "upload_id": upload_id}
        job_id: str = self._member.client.post("/v1/jobs", job)["job_id"]
        self._say(f"{name}: {job_id}, {steps} steps")
        return job_id

    def _watch(self, job_ids: Sequence[str], until: Callable[[Doc], bool]) -> Doc:
        """Show the meters of jobs until the first of them is where it should get to."""
        deadline_s, told_s = time.monotonic() + PATIENCE_S, 0.0
        while time.monotonic() < deadline_s:
            job = self._member.client.get(f"/v1/jobs/{job_ids[0]}")
            if until(job):
                return job
            _promise(job["state"] not in _FINAL, f"{job['name']} goes on (it {job['state']})")
            if time.monotonic() - told_s >= PULSE_S:
                told_s = time.monotonic()
                self._meters(job_ids)
            time.sleep(POLL_S)
        raise Failure("demo_broken", f"{job_ids[0]} is still {job['state']} after {PATIENCE_S} s")

    def _meters(self, job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            meter = self._member.client.get(f"/v1/jobs/{job_id}/meter")
            self._say(f"{job_id}  {render.meter_line(meter)}")

    def _top_up(self) -> None:
        """More balance: the stopped job goes on from its checkpoint."""
        self._head("7  A top-up: it goes on where it stopped")
        gflop = self._rate * round(3 * LONG_S)
        self._buy(self._accounts[1], self._pack_of(gflop, "demo-top-up"))
        job = follow.follow(self._member, self._long, pulse_s=PULSE_S)
        _promise(job["state"] == "succeeded", f"the job succeeds after all (it {job['state']})")
        _promise(len(job["attempts"]) >= 2, "it took a second attempt")
        receipt = self._member.client.get(f"/v1/jobs/{self._long}/receipt")
        resumed = receipt["result"].get("resumed_from")
        _promise(bool(resumed) and resumed[0] > 0, "the second attempt resumed from its checkpoint")
        self._draw(render.receipt(receipt))
        brief = self._member.client.get(f"/v1/jobs/{self.seen['brief']['job_id']}/receipt")
        self._draw(render.receipt(brief))
        self.seen["resumed"] = {"job": job, "receipt": receipt}
        self.seen["brief"] = {"job": self.seen["brief"], "receipt": brief}

    def _audit(self) -> None:
        self._head("8  The audit")
        audit = self._operator.get("/v1/audit")
        self._draw(render.audit(audit))
        self.seen["audit"] = audit
        _promise(audit["ok"], "every invariant holds")


_FINAL = ("succeeded", "failed", "cancelled")


def _waits_after_attempt(job: Doc) -> bool:
    ended = [a for a in job["attempts"] if a["state"] == "ended"]
    return job["state"] == "queued" and bool(ended) and job["waiting"] is not None


def _work(name: str, steps: int) -> str:
    """A job file for `steps` steps of examples/checkpoint."""
    return (
        f"name: {name}\n"
        f"run: exec python work.py {steps}\n"
        f"workload: {{kind: command, steps: {steps}}}\n"
        f"checkpoint: {{signal: SIGUSR1, grace: {GRACE_S}s}}\n"
        "wall_time: 5m\n"
    )


def _promise(kept: bool, text: str) -> None:
    """Fail unless what the platform promises is so."""
    if not kept:
        next_step = "see service.log in the data directory, and: dusuan audit"
        raise Failure("demo_broken", f"not as promised: {text}", next_step)
