"""Estimate the seconds and dollars of a build from all of NSD: ``python benchmarks/costs.py``.

The estimates come from numbers that `bench.py` measures, and from a few assumptions.
"""

from __future__ import annotations

from dataclasses import dataclass

N_SESSIONS = 240  # those with at least one trial that the eight-subject release needs
SESSION_GB = 2 * 491_526_304 / 1e9
NUMBERS_OF_WORKERS = (1, 2, 4, 8, 16, 32, 64)

# Measured (docs/performance.md), with one worker on two cores and files in memory
SESSION_SECONDS = 0.20  # to gather, standardise and keep one session
N_SUBJECTS = 8
SUBJECT_SECONDS = 1.0  # to average and standardise the images of one subject, and to write its values, on two cores
# To start; the assemblies; 515 PNG images. The first process does this alone.
SERIAL_SECONDS = 2 + N_SUBJECTS * SUBJECT_SECONDS + 515 * 0.03

# Assumed
INSTANCE_DOLLARS_PER_HOUR = 0.096  # a machine with two cores (m5.large, on demand) and one worker
GET_DOLLARS = 0.0004 / 1000  # per request
GET_GB = 8 * 2**20 / 1e9  # per request


@dataclass(frozen=True)
class Source:
    """Where the betas are.

    Attributes
    ----------
    bottleneck : the part that limits the rate
    worker_rate, shared_rate : what one worker can read, and all of them together, in GB/s
    is_local : whether it belongs to one machine, on which all workers run
    """

    name: str
    bottleneck: str
    worker_rate: float
    shared_rate: float
    dollars_per_gb: float = 0.0
    is_local: bool = False


SOURCES = (
    Source("local NVMe disk, 3 GB/s", "the disk", 3.0, 3.0, is_local=True),
    Source("network disk, 10 Gbit/s in all", "the disk", 1.1, 1.1),
    # Each worker has eight connections of 60 MB/s. S3 answers 5,500 requests per second and prefix: here over 40 GB/s.
    Source("bucket, same region", "each worker's connections", 0.48, 40.0, GET_DOLLARS / GET_GB),
)


@dataclass(frozen=True)
class Estimate:
    """What a build takes, and what limits it."""

    seconds: float
    dollars: float
    bottleneck: str

    def __str__(self) -> str:
        return f"{self.seconds:.0f} s, ${self.dollars:.2f} ({self.bottleneck})"


def estimate(source: Source, n_workers: int) -> Estimate:
    """Estimate a build: the slower of reading and computing, then the work that the first process does alone."""
    n_gb = N_SESSIONS * SESSION_GB
    reading = n_gb / min(source.shared_rate, n_workers * source.worker_rate)
    computing = N_SESSIONS / n_workers * SESSION_SECONDS
    parallel_seconds, bottleneck = max((reading, source.bottleneck), (computing, "computing"))
    if parallel_seconds < SERIAL_SECONDS:
        bottleneck = "the first process"
    seconds = parallel_seconds + SERIAL_SECONDS
    n_machines = 1 if source.is_local else n_workers
    dollars = n_machines * seconds / 3600 * INSTANCE_DOLLARS_PER_HOUR + n_gb * source.dollars_per_gb
    return Estimate(seconds, dollars, bottleneck)


def main() -> None:
    print("| workers | " + " | ".join(source.name for source in SOURCES) + " |")
    print("|---" * (len(SOURCES) + 1) + "|")
    for n_workers in NUMBERS_OF_WORKERS:
        print(f"| {n_workers} | " + " | ".join(str(estimate(source, n_workers)) for source in SOURCES) + " |")


if __name__ == "__main__":
    main()
