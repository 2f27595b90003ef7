"""What a promised time means on a machine that is busy with other things too, other tests first."""

from __future__ import annotations

import os


def in_time(seconds: float) -> float:
    """*seconds*, longer by as much as there is more to run than there are processors."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
