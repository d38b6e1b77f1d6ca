"""Seconds and dollars of the whole of NSD, from constants that `bench.py` measures and a few assumptions: ``python costs.py``."""

from __future__ import annotations

from dataclasses import dataclass

N_SESSIONS = 240  # those that hold a needed trial of the eight-subject release
SESSION_GB = 2 * 491_526_304 / 1e9
WORKERS = (1, 2, 4, 8, 16, 32, 64)

# Measured (docs/performance.md): one worker of two cores, files in memory; then what the first process does alone.
SESSION_SECONDS = 0.20  # gather, standardise and keep one session
SERIAL_SECONDS = 2 + 8 * 2.7 + 515 * 0.03  # start; averages, statistics and assemblies of 8 subjects; 515 PNG images
# Assumed
INSTANCE_DOLLARS_PER_HOUR = 0.096  # a machine of two cores (m5.large, on demand), one worker each
GET_DOLLARS = 0.0004 / 1000
GET_GB = 8 * 2**20 / 1e9


@dataclass(frozen=True)
class Source:
    """Where the betas lie: what one worker can draw from it, and all of them together, in GB/s."""

    name: str
    worker_rate: float
    shared_rate: float
    dollars_per_gb: float = 0.0


SOURCES = (
    Source("local NVMe disk, 3 GB/s", 3.0, 3.0),
    Source("network disk, 10 Gbit/s in all", 1.1, 1.1),
    # Eight connections of 60 MB/s a worker; S3 itself serves 5,500 requests a second and prefix, over 40 GB/s here.
    Source("bucket, same region", 0.48, 40.0, GET_DOLLARS / GET_GB),
)


def cost(source: Source, n_workers: int) -> tuple[float, float, str]:
    """Return the seconds, the dollars and the bottleneck of a build."""
    n_gb = N_SESSIONS * SESSION_GB
    limits = {
        "each worker's connections" if source.shared_rate > source.worker_rate else "the disk": n_gb
        / min(source.shared_rate, n_workers * source.worker_rate),
        "computing": N_SESSIONS / n_workers * SESSION_SECONDS,
    }
    bottleneck = max(limits, key=lambda name: limits[name])
    seconds = limits[bottleneck] + SERIAL_SECONDS
    if limits[bottleneck] < SERIAL_SECONDS:
        bottleneck = "the first process"
    # A local disk serves one machine, however many workers it runs.
    n_machines = 1 if source is SOURCES[0] else n_workers
    return seconds, n_machines * seconds / 3600 * INSTANCE_DOLLARS_PER_HOUR + n_gb * source.dollars_per_gb, bottleneck


def main() -> None:
    print("| workers | " + " | ".join(source.name for source in SOURCES) + " |")
    print("|---" * (len(SOURCES) + 1) + "|")
    for n_workers in WORKERS:
        cells = ("{:.0f} s, ${:.2f} ({})".format(*cost(source, n_workers)) for source in SOURCES)
        print(f"| {n_workers} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
