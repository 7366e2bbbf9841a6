"""How long ``dragonfly --help`` takes beside ``python -c "import typer, rich"``: the price of starting at all.

    python benchmarks/startup.py

Both are run in turn; the ratio of the medians is printed. Target: at most 1.25.
"""

import statistics
import subprocess
import sys
import time

HELP = [sys.executable, "-m", "dragonfly_cli", "--help"]
BARE = [sys.executable, "-c", "import typer, rich"]
ROUNDS = 40


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    seconds(HELP), seconds(BARE)  # both are on disk, not in memory, the first time
    pairs = [(seconds(HELP), seconds(BARE)) for _ in range(ROUNDS)]
    ours, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"dragonfly --help {ours * 1000:.0f} ms, import typer, rich {bare * 1000:.0f} ms: ratio {ours / bare:.2f}")


if __name__ == "__main__":
    main()
