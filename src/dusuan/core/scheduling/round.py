"""One live scheduling round: a snapshot of the pool in, a plan with names and reasons out.

The decision itself is made by the compiled round that the simulator calls too (`decide.py`). Here a
snapshot becomes arrays, and what was decided becomes devices, words and remedies.

1. Set aside what the pool can never or not now run, with its reason: it holds back nobody.
2. Lay the rest out as arrays: who runs where, who waits. 3. Decide. 4. Read the plan, and give
every job that waits its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dusuan.core.scheduling.decide import POOL, Decision
from dusuan.core.scheduling.explain import reasons, unfit
from dusuan.core.scheduling.model import Cluster, Plan, Preempt, QueuedJob, Request, Start, Wait
from dusuan.core.scheduling.policy import PolicyParts
from dusuan.core.scheduling.pool import Pool, pool_of
from dusuan.core.scheduling.scene import Scene, codes_of


def schedule(
    cluster: Cluster, queue: Sequence[QueuedJob], policy: PolicyParts, now_ms: int
) -> Plan:
    """Decide what starts now, and give the reason for every job that does not.

    `now_ms` is the Unix time of the round.
    """
    pool, waits = pool_of(cluster.devices), {}
    able: list[QueuedJob] = []
    unfits = _unfits(pool, queue)
    for job in sorted(queue, key=lambda job: job.order):
        wait = job.blocked or unfits[job.request]
        if wait is None:
            able.append(job)
        else:
            waits[job.job_id] = wait
    if not able:
        return Plan((), waits)
    scene = Scene.of(cluster, pool, able)
    decision = scene.decide(policy, now_ms)
    plan = _named(scene, decision)
    waits.update(reasons(scene, plan, codes_of(scene, decision), policy.name))
    return replace(plan, waits=waits)


def _unfits(pool: Pool, queue: Sequence[QueuedJob]) -> dict[Request, Wait | None]:
    """What keeps each kind of request out of the pool, worked out once for all that ask alike."""
    return {request: unfit(request, pool) for request in {job.request for job in queue}}


def outline(cluster: Cluster, queue: Sequence[QueuedJob], policy: PolicyParts, now_ms: int) -> Plan:
    """What `schedule` decides, without the reasons: for questions that are asked many times."""
    pool = pool_of(cluster.devices)
    unfits = _unfits(pool, queue)
    able = [job for job in queue if job.blocked is None and unfits[job.request] is None]
    scene = Scene.of(cluster, pool, sorted(able, key=lambda job: job.order))
    return _named(scene, scene.decide(policy, now_ms)) if able else Plan()


def _named(scene: Scene, decision: Decision) -> Plan:
    """The decision with the names of jobs and devices; the waits are still missing."""
    stopped = {scene.jobs[j].job_id for j, _ in decision.preempts}
    left = _devices_of(scene, stopped) if stopped else set()
    placed = [Start(scene.jobs[j].job_id, scene.names(parts)) for j, parts in decision.starts]
    preempts = [Preempt(scene.jobs[v].job_id, scene.jobs[j].job_id) for v, j in decision.preempts]
    return Plan(
        starts=tuple(start for start in placed if not left & set(start.devices)),
        preemptions=tuple(preempts),
        claims=tuple(start for start in placed if left & set(start.devices)),
        expected_ms={scene.jobs[j].job_id: at for j, at in decision.reserved},
        limits={
            scene.jobs[j].job_id: "" if a == POOL else scene.shares[a].account
            for j, a in decision.limits
        },
    )


def _devices_of(scene: Scene, jobs: set[str]) -> set[str]:
    return {name for job in scene.running if job.job_id in jobs for name in job.devices}
