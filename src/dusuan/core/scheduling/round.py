"""One live scheduling round: a snapshot of the pool in, a plan with names and reasons out.

The decision itself is made by the compiled round that the simulator calls too (`decide.py`). Here a
snapshot becomes arrays, and what was decided becomes devices, words and remedies.

1. Set aside what the pool can never or not now run, with its reason: it holds back nobody.
2. Lay the rest out as arrays: who runs where, who waits. 3. Decide. 4. Read the plan, and give
every job that waits its reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dusuan.core.scheduling import arrays
from dusuan.core.scheduling.decide import Decision, Part, decide, fill_queue, occupy
from dusuan.core.scheduling.explain import reasons, unfit
from dusuan.core.scheduling.model import (
    TIERS,
    UNKNOWN,
    Cluster,
    DeviceSlot,
    Plan,
    Preempt,
    QueuedJob,
    Request,
    RunningJob,
    Share,
    Start,
    Wait,
    matches,
    usable,
)
from dusuan.core.scheduling.policy import PolicyParts, rules
from dusuan.core.scheduling.state import new_state

__all__ = ["matches", "schedule"]

_RUNS_ON_MS = 5 * 365 * 86_400_000  # half of what the rules take for an unknown run time


def schedule(
    cluster: Cluster, queue: Sequence[QueuedJob], policy: PolicyParts, now_ms: int
) -> Plan:
    """Decide what starts now, and give the reason for every job that does not.

    `now_ms` is the Unix time of the round.
    """
    waits: dict[str, Wait] = {}
    able: list[QueuedJob] = []
    unfits = _unfits(cluster, queue)
    for job in sorted(queue, key=lambda job: job.order):
        wait = job.blocked or unfits[job.request]
        if wait is None:
            able.append(job)
        else:
            waits[job.job_id] = wait
    if not able:
        return Plan((), waits)
    scene = _Scene.of(cluster, able)
    decision = scene.decide(policy, now_ms)
    plan = _named(scene, decision)
    waits.update(reasons(cluster, able, plan, _codes(scene, decision), policy.name))
    return Plan(plan.starts, waits, plan.preemptions, plan.claims, plan.expected_ms)


def _unfits(cluster: Cluster, queue: Sequence[QueuedJob]) -> dict[Request, Wait | None]:
    """What keeps each kind of request out of the pool, worked out once for all that ask alike."""
    return {request: unfit(request, cluster) for request in {job.request for job in queue}}


def outline(cluster: Cluster, queue: Sequence[QueuedJob], policy: PolicyParts, now_ms: int) -> Plan:
    """What `schedule` decides, without the reasons: for questions that are asked many times."""
    unfits = _unfits(cluster, queue)
    able = [job for job in queue if job.blocked is None and unfits[job.request] is None]
    scene = _Scene.of(cluster, sorted(able, key=lambda job: job.order))
    return _named(scene, scene.decide(policy, now_ms)) if able else Plan()


def _codes(scene: _Scene, decision: Decision) -> dict[str, str]:
    """The code of every job that waits, in the order in which they were looked at."""
    return {scene.jobs[j].job_id: code for j, code in decision.waits}


def _named(scene: _Scene, decision: Decision) -> Plan:
    """The decision with the names of jobs and devices; the waits are still missing."""
    stopped = {scene.jobs[j].job_id for j, _ in decision.preempts}
    left = {name for job in scene.running if job.job_id in stopped for name in job.devices}
    placed = [Start(scene.jobs[j].job_id, scene.names(parts)) for j, parts in decision.starts]
    preempts = [Preempt(scene.jobs[v].job_id, scene.jobs[j].job_id) for v, j in decision.preempts]
    return Plan(
        starts=tuple(start for start in placed if not left & set(start.devices)),
        preemptions=tuple(preempts),
        claims=tuple(start for start in placed if left & set(start.devices)),
        expected_ms={scene.jobs[j].job_id: at for j, at in decision.reserved},
    )


@dataclass(frozen=True, slots=True)
class _Scene:
    """A snapshot as arrays, with the names of what they number.

    A node of the arrays holds the usable devices of one model on one host.
    """

    nodes: tuple[tuple[DeviceSlot, ...], ...]
    models: tuple[str, ...]
    running: tuple[RunningJob, ...]
    queue: tuple[QueuedJob, ...]
    shares: tuple[Share, ...]
    preempted_last_hour: int

    @classmethod
    def of(cls, cluster: Cluster, queue: Sequence[QueuedJob]) -> _Scene:
        """`queue` are the jobs that might start."""
        groups: dict[tuple[str, str], list[DeviceSlot]] = {}
        for device in cluster.devices:
            if usable(device):
                groups.setdefault((device.node, device.model), []).append(device)
        known = {job.job_id for job in cluster.running}
        strangers: dict[str, list[str]] = {}
        for device in cluster.devices:
            if device.holder is not None and device.holder not in known:
                strangers.setdefault(device.holder, []).append(device.device)
        running = [*cluster.running, *(RunningJob(n, tuple(d)) for n, d in strangers.items())]
        return cls(
            tuple(tuple(group) for group in groups.values()),
            tuple(sorted({model for _, model in groups})),
            tuple(running),
            tuple(queue),
            _with_owners(cluster.shares, [*running, *queue]),
            cluster.preempted_last_hour,
        )

    @property
    def jobs(self) -> tuple[RunningJob | QueuedJob, ...]:
        """Jobs by their number in the arrays."""
        return (*self.running, *self.queue)

    def decide(self, policy: PolicyParts, now_ms: int) -> Decision:
        """One round of the compiled rules."""
        book = rules(policy)
        ratings = [
            max(d.gflops for n in self.nodes for d in n if d.model == m) for m in self.models
        ]
        jobs, accounts = self._jobs(now_ms), self._accounts()
        state = new_state(self._nodes(), np.array(ratings, np.int64), jobs, accounts)
        at = {d.device: (n, i) for n, node in enumerate(self.nodes) for i, d in enumerate(node)}
        for j, running in enumerate(self.running):
            parts = _parts(at[name] for name in running.devices if name in at)
            if parts:
                occupy(state, book, j, parts, running.since_ms)
        state.values["preempt_from_ms"] = now_ms
        state.values["preempt_count"] = self.preempted_last_hour
        fill_queue(state, book, now_ms)
        return decide(state, book, now_ms)

    def names(self, parts: Iterable[Part]) -> tuple[str, ...]:
        """The devices of a placement."""
        return tuple(self.nodes[part.node][i].device for part in parts for i in part.devices)

    def _nodes(self) -> arrays.Records:
        nodes = arrays.nodes_array(len(self.nodes))
        nodes["gpus"] = [len(node) for node in self.nodes]
        nodes["type"] = [self.models.index(node[0].model) for node in self.nodes]
        return nodes

    def _jobs(self, now_ms: int) -> arrays.Records:
        """Running jobs first, in the state in which they are to be put where they run."""
        jobs = arrays.jobs_array(len(self.jobs))
        place = {share.account: i for i, share in enumerate(self.shares)}
        waiting = len(self.running)
        jobs["estimate_ms"] = [job.limit_ms for job in self.jobs]
        jobs["predicted_ms"] = [job.expected_ms for job in self.jobs]
        jobs["tier"] = [TIERS.index(job.tier) for job in self.jobs]
        jobs["account"] = [place[job.owner] for job in self.jobs]
        jobs["preemptible"] = [job.preemptible for job in self.jobs]
        unknown = (jobs["predicted_ms"] < 0) & (jobs["estimate_ms"] < 0)
        # Whoever runs for nobody knows how long ends before whoever would: none overtakes a gang.
        jobs["predicted_ms"][:waiting][unknown[:waiting]] = _RUNS_ON_MS
        jobs["devices"][:waiting] = [max(len(job.devices), 1) for job in self.running]
        jobs["submit_ms"][:waiting] = [job.since_ms for job in self.running]
        types = {r: self._types(r) for r in {job.request for job in self.queue}}
        for j, job in enumerate(self.queue, waiting):
            jobs[j]["devices"] = job.request.count
            jobs[j]["types"] = types[job.request]
            jobs[j]["submit_ms"] = jobs[j]["since_ms"] = job.waits_since_ms or now_ms
            jobs[j]["priority"], jobs[j]["yields"] = job.priority, job.yields
            jobs[j]["state"] = arrays.WAITING
            if job.deadline_ms != UNKNOWN:
                jobs[j]["deadline_ms"] = job.deadline_ms
        return jobs

    def _types(self, request: Request) -> int:
        """The models on which one node can hold the whole request, as bits."""
        return sum(
            {
                1 << self.models.index(node[0].model)
                for node in self.nodes
                if len(node) >= request.count and matches(request, node[0])
            }
        )

    def _accounts(self) -> arrays.Records:
        place = {share.account: i for i, share in enumerate(self.shares)}
        accounts = arrays.accounts_array(len(self.shares))
        for account, share in zip(accounts, self.shares, strict=True):
            account["parent"] = -1 if share.parent is None else place.get(share.parent, -1)
            account["weight"] = share.weight
            account["usage"], account["usage_at_ms"] = share.usage_ms, share.usage_at_ms
            for name, devices in (("quota_milli", share.quota), ("borrow_milli", share.borrow)):
                account[name] = -1 if devices is None else devices * arrays.WHOLE
        return accounts


def _with_owners(
    shares: Sequence[Share], jobs: Sequence[RunningJob | QueuedJob]
) -> tuple[Share, ...]:
    """Every account that a job names; one without a share of its own has no limit."""
    known = {share.account for share in shares}
    others = dict.fromkeys(job.owner for job in jobs if job.owner not in known)
    return (*shares, *(Share(owner) for owner in others))


def _parts(places: Iterable[tuple[int, int]]) -> list[Part]:
    """A part per node from (node, device) numbers."""
    found: dict[int, list[int]] = {}
    for node, device in places:
        found.setdefault(node, []).append(device)
    return [Part(node, tuple(sorted(devices)), arrays.WHOLE) for node, devices in found.items()]
