"""
Resources: what one member needs of a machine, in Ray's words.

Plain numbers, checked where they are written. Fractions of a GPU are allowed
below 1; above it Ray wants whole ones. A host that runs several members asks for
their sum (`times`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import Any

from actors.errors import nearest
from supervisors import checks

_UNITS = {"": 1, "B": 1} | {
    f"{prefix}{suffix}": base ** (power + 1)
    for suffix, base in (("B", 1000), ("iB", 1024))
    for power, prefix in enumerate("KMGT")
}
# Ray counts in ten-thousandths.
_DIGITS = 4
_SMALLEST = 10**-_DIGITS
_RESERVED = ("CPU", "GPU", "memory")


@dataclass(frozen=True, slots=True)
class Resources:
    """What one member asks for; nothing by default, so it fits everywhere."""

    cpu: float = 0
    gpu: float = 0
    memory: int | str | None = None
    """Bytes, or text such as "512MiB" or "1.5GB"."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels a node must carry."""
    custom: Mapping[str, float] = field(default_factory=dict)
    """Amounts of resources the cluster declares itself."""

    def __post_init__(self) -> None:
        _check_amount("cpu", self.cpu)
        _check_amount("gpu", self.gpu)
        if self.gpu > 1 and self.gpu != int(self.gpu):
            raise checks.misfit("Resources", "gpu", self.gpu, "is a fraction above 1; only whole GPUs add up")
        if self.memory is not None:
            parse_bytes("Resources", "memory", self.memory)
        checks.words_by_name("Resources", "labels", self.labels)
        checks.numbers_by_name("Resources", "custom", self.custom)
        for name, amount in self.custom.items():
            _check_custom(name, amount)
        object.__setattr__(self, "labels", dict(self.labels))
        object.__setattr__(self, "custom", dict(self.custom))

    @property
    def memory_bytes(self) -> int | None:
        """`memory` in bytes, None when none is asked for."""
        return None if self.memory is None else parse_bytes("Resources", "memory", self.memory)

    @property
    def is_empty(self) -> bool:
        """True when any node will do and nothing needs to be held."""
        return not self.bundle() and not self.labels

    def times(self, n: int) -> Resources:
        """The sum of *n* members; `InvalidArgument` when Ray could not hold it (3 times half a GPU)."""
        checks.whole("Resources.times", "n", n)
        memory = self.memory_bytes
        return Resources(
            cpu=round(self.cpu * n, _DIGITS),
            gpu=round(self.gpu * n, _DIGITS),
            memory=memory * n if memory is not None and n else None,
            labels=self.labels,
            custom={name: round(amount * n, _DIGITS) for name, amount in self.custom.items()},
        )

    def bundle(self) -> dict[str, float]:
        """What a Ray placement group's bundle says; what is not asked for is left out."""
        amounts: dict[str, float] = {"CPU": self.cpu, "GPU": self.gpu, "memory": self.memory_bytes or 0}
        return {name: float(amount) for name, amount in {**amounts, **self.custom}.items() if amount}

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can carry."""
        return {
            "cpu": self.cpu,
            "gpu": self.gpu,
            "memory": self.memory_bytes,
            "labels": dict(self.labels),
            "custom": dict(self.custom),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Resources:
        """The other way round; checked like any other `Resources`."""
        known = [each.name for each in fields(cls)]
        for key in data:
            if key not in known:
                raise checks.misfit("Resources", str(key), data[key], f"is unknown{nearest(str(key), known)}")
        return cls(**data)


def parse_bytes(owner: str, field: str, value: object) -> int:
    """*value*, a number of bytes or text such as "2GiB", as bytes."""
    if not isinstance(value, str):
        checks.whole(owner, field, value, least=1)
        assert isinstance(value, int)
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value)
    if match is None:
        raise checks.misfit(owner, field, value, 'is not an amount such as 1048576, "512MiB" or "1.5GB"')
    number, unit = match.groups()
    if unit not in _UNITS:
        raise checks.misfit(owner, field, value, f"has an unknown unit {unit!r}{nearest(unit, _UNITS)}")
    size = int(Fraction(number) * _UNITS[unit])
    if size < 1:
        raise checks.misfit(owner, field, value, "is less than a byte")
    return size


def _check_amount(field: str, value: object) -> None:
    checks.non_negative("Resources", field, value)
    assert isinstance(value, (int, float))
    if 0 < value < _SMALLEST:
        raise checks.misfit("Resources", field, value, f"is finer than {_SMALLEST:g}, the least Ray counts")


def _check_custom(name: str, amount: float) -> None:
    if name in _RESERVED:
        raise checks.misfit("Resources", f"custom[{name!r}]", amount, "has a field of its own")
    _check_amount(f"custom[{name!r}]", amount)
