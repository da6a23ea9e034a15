"""Faults put into the rules of scheduling and the figures of the simulator: are they noticed?

    python tests/house/rule_mutants.py [NAME ...]

One at a time in a copy of the sources, which the tests named here run as plain Python
(`interpreted.py`), a few examples each. Prints what noticed it; exits 1 when nothing did.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KERNELS, GAUGES = "core/scheduling/kernels/", "sim/gauges/"
QUOTA = ("sim/test_fairness.py", "sim/test_quota_rounds.py")
PLACES = ("sim/test_packing.py", "sim/test_placing_rounds.py", "sim/test_topology.py")
ROUNDS = ("sim/test_calm.py", "sim/test_quota_rounds.py", "core/test_scheduling.py")
WORK = ("sim/test_equal_work.py", "sim/test_calm.py")
MOVING = ("sim/test_traces.py", "sim/test_calm.py")
MEASURES = ("sim/test_measures.py",)
SLOW = "not starves_for and not something and not remembering and not recorded"  # to interpret


@dataclass(frozen=True)
class Fault:
    """`old` in `file` becomes `new`; the first of `tests` to fail has noticed it."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def _in(file: str, tests: tuple[str, ...], changes: dict[str, tuple[str, str]]) -> dict[str, Fault]:
    return {name: Fault(file, old, new, tests) for name, (old, new) in changes.items()}


FAULTS = {
    **_in(KERNELS + "accounts.py", QUOTA, {
        "what is kept stays kept when it is used": (
            "max(0, account(s, a).kept_milli - account(s, a).used_milli)",
            "account(s, a).kept_milli",
        ),
        "nobody may borrow where borrowing is limited": (
            "- account(s, a).kept_milli) + borrow", "- account(s, a).kept_milli)",
        ),
        "a limit is reached one early": (
            "if own + may_borrow(s, a) < wanted:", "if own + may_borrow(s, a) <= wanted:",
        ),
        "a parent gets back what was never its": (
            "milli = min(milli, max(0, beyond))", "milli = max(0, beyond)",
        ),
        "all that an account holds counts against its parent": (
            "milli = max(0, milli - own)", "milli = max(0, milli)",
        ),
        "anybody is a borrower": ("return bool(mine and borrowed)", "return bool(mine)"),
        "anybody is owed": ("return bool(mine and borrowed)", "return bool(borrowed)"),
        "levels above are asked for all of it": (
            "            wanted = max(0, wanted - own_idle(s, a))\n", "",
        ),
        "guarantees end one early": (
            "own_used_milli + wanted <= account(s, a).own_milli",
            "own_used_milli + wanted < account(s, a).own_milli",
        ),
        "who is taken last need not borrow": (
            "if needed or not all_borrow(s, whose, milli, taken, count, a, wanted):", "if needed:",
        ),
        "nobody is spared": (
            "    spare_unneeded(s, whose, milli, taken, count, a, wanted, free)\n", "",
        ),
        "what is kept is kept from its owner": (
            "if not mine and 0 < account(s, a).opens_ms", "if 0 < account(s, a).opens_ms",
        ),
        "the highest level that limits keeps nothing": ("while a >= top:", "while a > top:"),
        "memory is no resource": ("cpu / s.pool_cpu, memory / s.pool_memory)", "cpu / s.pool_cpu)"),
    }),
    **_in(KERNELS + "quota.py", QUOTA, {
        "a gang counts for what it asks": (
            "return int(max(devices + over, -(-devices // size) * size))", "return devices",
        ),
        "use does not fade": ("return float(np.exp2(halves))", "return 1.0"),
        "who leaves gives nothing back": (
            "    if s.limits:\n        give(s, a, job(s, j).taken_milli)\n", "",
        ),
        "quota is expected at once": (
            "at = max(job(s, leaver).expected_end_ms, now + 1)", "at = now + 1",
        ),
        "what runs is no use": ("using_of(s)[a, 0] += devices", "using_of(s)[a, 0] += 0.0"),
        "all devices are alike": ("float(job(s, j).taken_milli) * rating *",
                                  "float(job(s, j).taken_milli) *"),
    }),
    **_in(KERNELS + "fairness.py", QUOTA, {
        "the largest share goes first": (
            "a if account(p, a).share < account(p, b).share else b",
            "b if account(p, a).share < account(p, b).share else a",
        ),
        "equal shares have places of their own": (
            "or keys[a] != keys[last] or share[a] != share[last]:", "or True:",
        ),
        "what is owed is not by weight": (
            "min(1.0, weights[a] / max(weight[parent], 1e-300))", "1.0",
        ),
        "children go before their parent": (
            "next_one[g] = next_one[above[g]] + own", "next_one[g] = next_one[above[g]]",
        ),
        "a closed queue stays closed": ("account(p, a).next -= UNLIMITED", "pass"),
    }),
    **_in(KERNELS + "place.py", PLACES, {
        "a gang's part is rounded down": ("-(-total * gpus // devices)", "total * gpus // devices"),
        "a gang takes what is promised": (
            "free = min(node(s, n).whole, later_node(s, n).whole)", "free = node(s, n).whole",
        ),
        "a slow device is done as soon": (
            "return int(np.ceil(work_ms * (reference_gflops / rating_gflops)))", "return work_ms",
        ),
        "a promised node is open": ("<= here.closes_ms\n", "<= here.closes_ms + 300_000\n"),
        "the slowest type first": ("kind(s, t).rank > rank:", "kind(s, t).rank < rank:"),
        "gangs keep together by leaf alone": (
            "node(s, n).domain if job(s, j).topology == SAME_DOMAIN else", "",
        ),
        "a gang takes the roomiest group": (
            "room_in[g] < room_in[best]", "room_in[g] > room_in[best]",
        ),
    }),
    **_in(KERNELS + "index.py", PLACES, {
        "the ring forgets nothing": ("mine.cursor > s.ring:", "mine.cursor > 4 * s.ring:"),
        "a tree outlives the promise it saw": (
            "(guard and mine.stamp != s.later_stamp)", "False",
        ),
        "nodes are alike whatever is promised": (
            "if guard and later_of(s)[n, d] != later_of(s)[m, d]:", "if False:",
        ),
        "the last of equals": (
            "2 * at if tree[2 * at] == tree[at] else 2 * at + 1",
            "2 * at + 1 if tree[2 * at + 1] == tree[at] else 2 * at",
        ),
        "a parent keeps its score": ("        tree[at] = larger\n", "        pass\n"),
        "one change is missed": (
            "range(tree_state(s, i).cursor, kind(s, t).changes)",
            "range(tree_state(s, i).cursor + 1, kind(s, t).changes)",
        ),
    }),
    **_in(KERNELS + "score.py", PLACES, {
        "fragmentation is sought": ("return descent(gain - taken), -1",
                                    "return descent(gain + taken), -1"),
        "room for all but one": ("roomy_at(s, n, ask.milli, guard) >= needed",
                                 "roomy_at(s, n, ask.milli, guard) >= needed - 1"),
        "memory is not looked at": (" or memory_at(s, n, guard) < ask.memory_mib", ""),
        "CPU serves any number": ("return float(min(devices, cpu / s.cpu_per_device))",
                                  "return devices"),
        "the roomiest among equals": ("_EQUALS // 2 - roomy_at", "_EQUALS // 2 + roomy_at"),
    }),
    **_in(KERNELS + "preempt.py", ROUNDS, {
        "the calm is of all tiers": (
            " or job(s, j).tier < s.calm_tier:\n        return False", ":\n        return False",
        ),
        "the calm is of those that wait too long": (
            "if s.calm == 0 or (job(s, j).overdue and s.calm == 1) or", "if s.calm == 0 or",
        ),
        "who runs long enough disturbs nobody": (
            "return s.calm == 2 or stands_behind(s, rules, victim, now)", "return False",
        ),
        "one that failed stands for a better tier": (
            "    if rules.preempt & BY_TIER and job(s, a).tier < job(s, b).tier:\n"
            "        return False\n", "",
        ),
        "one that failed stands for a better order": (
            "return bool(keys_of(s)[a, i] > keys_of(s)[b, i])", "return True",
        ),
        "one that failed stands for those that wait too long": (
            "    if job(s, a).overdue or not is_plain_order(rules):\n        return False\n", "",
        ),
        "one that failed stands for all behind": (
            "return bool(every or s.first_tier >= job(s, s.failed).tier)", "return True",
        ),
        "one that asks for most stands for all": (
            "asked.devices * asked.milli > s.smallest_milli or", "False or",
        ),
        "CPU is not looked at": (
            "    if less.cpu_milli > more.cpu_milli or less.memory_mib > more.memory_mib:\n"
            "        return False\n", "",
        ),
        "small nodes hold as much as large ones": (
            "less <= s.node_min and job(s, b).cpu", "job(s, b).cpu",
        ),
        "room that is kept is no room": ("s.spare = 1  #", "s.spare = 0  #"),
        "a gang takes what is kept": ("costs[n], s.spare = np.inf, 1  #", "costs[n] = 0.0  #"),
        "an overdue job has no turn": (
            "== 0 or has_its_turn(s, rules, victim, now):\n        return False\n    return job",
            "== 0:\n        return False\n    return job",
        ),
        "the protected are stopped": (
            "== 0 or now < job(s, victim).protected_ms:\n        return False\n    if rules",
            "== 0:\n        return False\n    if rules",
        ),
        "one storm more": ("return s.preempt_count < rules.preempt_per_hour",
                           "return s.preempt_count <= rules.preempt_per_hour"),
        "the costliest is stopped": ("return a > b if of_a == of_b else of_a > of_b",
                                     "return a > b if of_a == of_b else of_a < of_b"),
        "marks outlive what they were of": (
            "s.marked_moves != s.moves or reclaims", "reclaims",
        ),
    }),
    **_in(KERNELS + "amounts.py", WORK, {
        "equal work is rounded down": ("-(-work // kind(s, t).rating_gflops)",
                                       "max(work // kind(s, t).rating_gflops, 1)"),
        "all types do the work as fast": (
            "return int(rating * devices_on(s, j, t) // max(job(s, j).devices, 1))",
            "return int(rating)",
        ),
        "the fewest are the first type's": ("found = min(found, devices_on(s, j, t))",
                                            "return devices_on(s, j, t)"),
    }),
    **_in(KERNELS + "moving.py", MOVING, {
        "what is found for movers is not kept": (
            "        lay_out(s, chosen_of(s)[i], True)\n\n", "        pass\n\n",
        ),
        "movers take what is promised": ("place(s, rules, j, now, view)",
                                         "place(s, rules, j, now, 0)"),
        "what is learned on the way is kept": (
            "    s.none_from, s.hem_one, s.hem_gang = known\n", "",
        ),
        "movers may stay": ("    node(s, n).up -= 1\n", "", ),
        "who was laid out stays": (
            "        lay_out(s, chosen_of(s)[s.chosen - 1 - i], False)\n", "        pass\n",
        ),
    }),
    **_in(KERNELS + "round.py", ROUNDS, {
        "nobody may move where no node is whole": (
            "    if rules.preempt & BY_MOVE and s.free_milli >= s.least_milli:\n"
            "        return False", "    if False:\n        return False",
        ),
        "nobody comes after who cannot start": (
            "    if job(s, j).overdue and rules.gate_ms > 0 and not (s.types == 1 and"
            " reserved(s, j)):\n        return False\n", "",
        ),
        "the least of those who waited": (
            "            s.least_milli = min(s.least_milli, wanted_milli(s, j))\n", "",
        ),
        "a node's devices are all": ("most < s.node_min and most * WHOLE", "most * WHOLE"),
    }),
    **_in(KERNELS + "hold.py", ROUNDS, {
        "one that failed fails again": ("    s.failed = -1  #", "    pass  #"),
    }),
    **_in(GAUGES + "devices.py", MEASURES, {
        "CPU strands nothing": ("t, step = g.type[n], steps_of(g, g.cpu[n])",
                                "t, step = g.type[n], len(g.cpu_steps)"),
        "a gang's CPU is on every node": ("    if count < devices:", "    if False:"),
        "what is down is idle": ("    if g.downs[n] == 0:", "    if True:"),
    }),
    **_in(GAUGES + "read.py", MEASURES, {
        "what is down is owed": ("WHOLE) - now.down", "WHOLE)"),
        "waiting jobs ask for nothing": (
            "        g.now[0].waiting += 1\n        g.demand[g.account[line.job]]"
            " += g.asked[line.job]\n", "        g.now[0].waiting += 1\n",
        ),
        "the peak is the last": (
            "max(now.fragment_peak, now.idle - now.usable)", "now.idle - now.usable",
        ),
    }),
    **_in("sim/measures.py", MEASURES, {
        "a gang asks for its devices": (
            'found["devices"] = np.minimum(found["devices"], most)', 'found["devices"] += 0',
        ),
    }),
}  # fmt: skip


def noticed(fault: Fault) -> str:
    """Which test failed on a copy with the fault; empty for none."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copytree(ROOT / "src/dusuan", copy / "dusuan")
        file = copy / "dusuan" / fault.file
        text = file.read_text()
        if fault.old not in text:
            raise SystemExit(f"{fault.file} has no longer: {fault.old}")
        file.write_text(text.replace(fault.old, fault.new, 1))
        environment = {"EXAMPLES": "8", **os.environ, "PYTHONPATH": f"{copy}:{ROOT}"}
        for test in fault.tests:
            command = [sys.executable, "-m", "pytest", "-p", "tests.house.interpreted", "-x", "-q"]
            command += ["-k", SLOW, "-p", "no:cacheprovider", "--tb=no", "--timeout", "300"]
            command += [str(ROOT / "tests" / test)]
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                told = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
                return (told or done.stdout.splitlines() or ["?"])[-1]
    return ""


def main() -> int:
    """Try every fault, or those named."""
    missed = 0
    for name in sys.argv[1:] or FAULTS:
        said = noticed(FAULTS[name])
        missed += not said
        print(f"{'noticed' if said else 'NOT NOTICED'}: {name}: {said[:160]}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
