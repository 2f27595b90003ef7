"""
Faults at random for as long as one likes: `python -m tests.chaos --minutes 10 --seed 7`.

Prints the seed, each fault as it is done, and the verdict; the exit status is 1 when a number
that must be 0 is not.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import structlog

from supervisors.testing import FAULTS
from tests.chaos.run import chaos_run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    parser.add_argument("--period", type=float, default=4.0, help="seconds between faults on average")
    parser.add_argument("--rate", type=float, default=200.0, help="messages a second")
    parser.add_argument("--faults", default=None, help=f"some of {', '.join(FAULTS)}")
    parser.add_argument("--keep", action="store_true", help="keep the ledger and say where it is")
    options = parser.parse_args()
    _say_why_it_ends()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    faults = options.faults.split(",") if options.faults else None
    # What callers are told stands in the ledger; the dead letters on top would drown the faults.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
    print(f"seed {seed}", flush=True)
    try:
        verdict = chaos_run(
            folder,
            seconds=options.minutes * 60,
            seed=seed,
            period=options.period,
            rate=options.rate,
            faults=faults,
            keeps_logs=options.keep,
            say=lambda line: print(line, flush=True),
        )
    finally:
        if options.keep:
            print(f"the ledger is in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"seed {seed}\n{verdict.text()}")
    return 0 if verdict.is_clean else 1


def _say_why_it_ends() -> None:
    """Whatever ends this process from outside, or by a crash, leaves a word; the app is stopped in order."""
    faulthandler.enable()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(f"ended by {signal.Signals(number).name}"))


if __name__ == "__main__":
    sys.exit(main())
