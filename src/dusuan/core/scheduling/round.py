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
from dusuan.core.scheduling.model import Cluster, Plan, Preempt, QueuedJob, Start, Wait
from dusuan.core.scheduling.policy import PolicyParts
from dusuan.core.scheduling.pool import Pool, pool_of
from dusuan.core.scheduling.scene import Queue, Scene


def schedule(
    cluster: Cluster, queue: Sequence[QueuedJob], policy: PolicyParts, now_ms: int
) -> Plan:
    """Decide what starts now, and give the reason for every job that does not.

    `now_ms` is the Unix time of the round.
    """
    pool, everybody = pool_of(cluster.devices), Queue.of(queue)
    able, waits = _set_aside(pool, everybody)
    if not able.jobs:
        return Plan((), waits)
    scene = Scene.of(cluster, pool, able)
    decision = scene.decide(policy, now_ms)
    plan = _named(scene, decision)
    waits.update(reasons(scene, plan, decision.waits, policy.name))
    return replace(plan, waits=waits)


def _set_aside(pool: Pool, queue: Queue) -> tuple[Queue, dict[str, Wait]]:
    """The jobs that might start, and why the others cannot; once for all that ask alike."""
    unfits = [unfit(request, pool) for request in queue.requests]
    found = [job.blocked or unfits[k] for job, k in zip(queue.jobs, queue.kinds, strict=True)]
    waits = zip(queue.jobs, found, strict=True)
    able = queue.only([wait is None for wait in found])
    return able, {job.job_id: wait for job, wait in waits if wait is not None}


def outline(cluster: Cluster, queue: Sequence[QueuedJob], policy: PolicyParts, now_ms: int) -> Plan:
    """What `schedule` decides, without the reasons: for questions that are asked many times."""
    pool = pool_of(cluster.devices)
    able, _ = _set_aside(pool, Queue.of(queue))
    scene = Scene.of(cluster, pool, able)
    return _named(scene, scene.decide(policy, now_ms)) if able.jobs else Plan()


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
        limits={scene.jobs[j].job_id: _account(scene, a) for j, a in decision.limits},
        kept_ms={scene.jobs[j].job_id: until_ms for j, until_ms in decision.kept},
        kept_for={
            scene.jobs[j].job_id: tuple(_account(scene, a) for a in above)
            for j, above in decision.kept_for
        },
    )


def _account(scene: Scene, a: int) -> str:
    return "" if a == POOL else scene.shares[a].account


def _devices_of(scene: Scene, jobs: set[str]) -> set[str]:
    return {name for job in scene.running if job.job_id in jobs for name in job.devices}
