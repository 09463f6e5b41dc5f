"""The simulation of the autoscaling policies: what can be worked out by hand comes out."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.support.autoscaling.model import DAY, Fleet, Outcome, Simulation, arrivals_of, service_seconds
from benchmarks.support.autoscaling.policies import CloudRun, EcsTracking, Keda


def fleet(**changes: object) -> Fleet:
    plain = {
        "concurrency": 1,
        "start_seconds": 60.0,
        "poll_seconds": 0.0,
        "interruptions_an_hour": 0.0,
        "notice_seconds": 120.0,
        "protected": True,
        "drain_seconds": 0.0,
        "kept": 0.0,
    }
    return Fleet(**{**plain, **changes})  # type: ignore[arg-type]


def ecs(**changes: object) -> EcsTracking:
    plain = {
        "minimum": 0,
        "maximum": 10,
        "target_backlog": 5,
        "concurrency": 1,
        "scale_in_cooldown": 300,
        "scale_out_cooldown": 60,
    }
    return EcsTracking(**{**plain, **changes})  # type: ignore[arg-type]


def keda(**changes: object) -> Keda:
    plain = {
        "minimum": 0,
        "maximum": 10,
        "queue_length": 5,
        "polling_interval": 15,
        "cooldown_period": 300,
        "stabilization_seconds": 300,
    }
    return Keda(**{**plain, **changes})  # type: ignore[arg-type]


def run(arrivals: list[float], seconds: float, fleet: Fleet, policy: EcsTracking | Keda | CloudRun, seed: int = 1) -> Outcome:
    return Simulation(arrivals, [seconds] * len(arrivals), fleet, policy, seed=seed).run()


def test_one_task_that_is_always_there_does_jobs_in_turn() -> None:
    outcome = run([1000.0, 1001.0, 1002.0], 10.0, fleet(), ecs(minimum=1, maximum=1))
    assert [0.0, 9.0, 18.0] == outcome.waits.tolist()
    assert pytest.approx(1030 / 3600) == outcome.task_hours


def test_from_zero_ecs_takes_its_alarm_and_the_start_and_goes_back_to_zero() -> None:
    outcome = run([1000.0, 20_000.0], 10.0, fleet(), ecs())
    # Seen at 1020, told at 1080, there at 1140; the second at 20,040, 20,100 and 20,160.
    assert [140.0, 160.0] == outcome.waits.tolist()
    assert 2 == outcome.starts
    assert outcome.task_hours < 1


def test_keda_asks_the_queue_itself_and_ends_after_its_cooldown() -> None:
    outcome = run([1000.0], 10.0, fleet(), keda())
    assert [65.0] == outcome.waits.tolist()
    assert 1 == outcome.starts


def test_a_burst_brings_as_many_tasks_as_its_backlog_asks_for_and_no_more_than_allowed() -> None:
    burst = [1000.0 + 0.01 * number for number in range(100)]
    assert 10 == run(burst, 60.0, fleet(), keda()).most_tasks
    assert 4 == run(burst, 60.0, fleet(), keda(maximum=4)).most_tasks
    assert 10 == run(burst, 600.0, fleet(), ecs()).most_tasks


@pytest.mark.parametrize("policy", [ecs, keda])
def test_no_job_is_cut_off_by_scaling_in_where_tasks_that_work_are_spared(policy: object) -> None:
    arrivals = arrivals_of(500, days=1, bursts=0.3, seed=3).tolist()
    outcome = Simulation(arrivals, service_seconds(500, mean=200, spread=0.8, seed=3).tolist(), fleet(), policy(), seed=3).run()  # type: ignore[operator]
    assert (500, 0) == (outcome.ended, outcome.cut_off)


def test_what_is_cut_off_is_done_all_the_same() -> None:
    taken_away = fleet(interruptions_an_hour=2.0, notice_seconds=10.0)
    arrivals = arrivals_of(300, days=1, bursts=0.0, seed=4).tolist()
    again = run(arrivals, 300.0, taken_away, ecs(minimum=2))
    assert again.cut_off > 0
    assert 300 == again.ended
    kept = run(arrivals, 300.0, fleet(interruptions_an_hour=2.0, notice_seconds=10.0, kept=1.0), ecs(minimum=2))
    assert kept.task_hours < again.task_hours


def test_cloud_run_looks_at_processors_and_not_at_the_queue() -> None:
    burst = [1000.0 + 0.01 * number for number in range(100)]
    idle = CloudRun(minimum=1, maximum=10, cores=2, cores_a_job=0.02)
    busy = CloudRun(minimum=1, maximum=10, cores=2, cores_a_job=1.0)
    assert (1, 10) == (
        run(burst, 60.0, fleet(concurrency=10), idle).most_tasks,
        run(burst, 60.0, fleet(concurrency=10), busy).most_tasks,
    )


def test_days_have_the_jobs_that_were_asked_for_and_more_of_them_by_day() -> None:
    arrivals = arrivals_of(10_000, days=2, bursts=0.15, seed=5)
    assert 20_000 == len(arrivals)
    assert (np.diff(arrivals) >= 0).all()
    hours = arrivals % DAY // 3600
    assert np.sum((hours >= 8) & (hours < 18)) > 3 * np.sum(hours < 6)


def test_service_times_have_their_mean() -> None:
    assert pytest.approx(30.0, rel=0.02) == service_seconds(200_000, mean=30.0, spread=0.7, seed=6).mean()


def test_ecs_asks_once_for_what_is_starting() -> None:
    # 20 wait, 5 a task: 4 tasks, although none of them has started when the policy looks again.
    burst = [1000.0 + 0.01 * number for number in range(20)]
    slow_to_start = fleet(start_seconds=1200.0)
    outcome = run(burst, 10.0, slow_to_start, ecs(minimum=1, maximum=100, scale_out_cooldown=180))
    assert 4 == outcome.most_tasks


def test_ecs_keeps_all_tasks_while_any_job_runs_where_that_is_asked_for() -> None:
    arrivals = [1000.0 + 0.01 * number for number in range(50)] + [3000.0 + 300 * number for number in range(40)]
    held = run(arrivals, 290.0, fleet(protected=False), ecs(hold_while_working=True))
    let_go = run(arrivals, 290.0, fleet(protected=False), ecs())
    assert 0 == held.cut_off
    assert held.task_hours > 2 * let_go.task_hours
