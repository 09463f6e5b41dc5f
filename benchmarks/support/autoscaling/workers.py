"""The five workers as they run on the platforms: what `autoscale.py` sends jobs through."""

from __future__ import annotations

from dataclasses import dataclass

# The threshold of the alert `LaminaJobsSlow`, in seconds.
MOST_WAIT = 300.0
# Where nothing is kept at rest, a job may have to wait for a machine first.
_MOST_WAIT_FROM_ZERO = 600.0


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One of the workers that we replace, as it runs on a platform."""

    name: str
    platform: str
    # Units of a job, as in the measured rates, and how much jobs differ; or seconds of a job, where others do the work.
    units: float
    rate: str
    spread: float
    # Cores that a task has.
    cores: float
    # Of what a job had done when it was cut off, the share that counts: slides have checkpoints.
    kept: float
    # Where its policy stands in `scaling.toml`.
    policy: tuple[str, str]
    # Jobs at once of one task.
    concurrency: int
    # Jobs a day that the shipped capacity is meant for.
    meant_for: int
    gpu: bool = False
    # Of the 95th percentile with that, in seconds.
    bar: float = MOST_WAIT

    @property
    def unasked(self) -> bool:
        """Whether there are always as many tasks as are set: Cloud Run asks no queue that is pulled from, nor ECS the platform's tables."""
        return self.platform == "cloud_run" or (self.rate == "rollups" and self.policy[0] == "ecs")


# A slide has 1,500 tiles of tissue (100 mm²), a list 20 tests, an upload 500 readings, a card one page; a run lasts 45 s, all others' work.
_SLIDES = {"name": "slides", "units": 1500, "rate": "slides", "spread": 0.7, "kept": 0.95, "gpu": True, "concurrency": 4}
_LABS = {"name": "labs", "units": 20, "rate": "labs", "spread": 0.5, "kept": 0.0}
_ROLLUPS = {"name": "rollups", "units": 500, "rate": "rollups", "spread": 0.5, "kept": 0.0, "concurrency": 1}
_CARDS = {"name": "cards", "units": 1, "rate": "documents", "spread": 0.3, "kept": 0.0, "gpu": True, "concurrency": 8}
_RUNS = {"name": "consensus", "units": 45, "rate": "", "spread": 0.4, "kept": 0.5, "concurrency": 10}
_SERVERS = ("keda", "components/inference-autoscaling")
WORKERS = (
    Worker(**_SLIDES, platform="ecs_gpu", cores=3, policy=("ecs", "gpu_inference"), meant_for=100, bar=_MOST_WAIT_FROM_ZERO),
    Worker(**_SLIDES, platform="eks_gpu", cores=3, policy=_SERVERS, meant_for=1_000),
    Worker(**_LABS, platform="fargate", cores=0.5, concurrency=1, policy=("ecs", "ml_worker"), meant_for=10_000, bar=_MOST_WAIT_FROM_ZERO),
    Worker(**_LABS, platform="eks_gpu", cores=3, concurrency=4, policy=_SERVERS, gpu=True, meant_for=100_000),
    Worker(**_ROLLUPS, platform="fargate", cores=0.5, policy=("ecs", "ml_worker"), meant_for=10_000),
    Worker(**_ROLLUPS, platform="eks", cores=0.5, policy=("keda", "workers/rollups"), meant_for=100_000),
    Worker(**_CARDS, platform="ecs_gpu", cores=3, policy=("ecs", "ocr_worker"), meant_for=10_000, bar=_MOST_WAIT_FROM_ZERO),
    Worker(**_CARDS, platform="eks_gpu", cores=3, policy=_SERVERS, meant_for=10_000),
    Worker(**_RUNS, platform="cloud_run", cores=2, policy=("ecs", "consensus_worker"), meant_for=1_000),
    Worker(**_RUNS, platform="eks", cores=0.5, policy=("keda", "workers/consensus"), meant_for=10_000),
)
