"""
Traces and baggage as W3C writes them: what a call carries beside its arguments. Pure.

    traceparent  00-<32 hex: the trace>-<16 hex: the span that calls>-<2 hex: flags>
    baggage      key=value,key=value

Sources: https://www.w3.org/TR/trace-context/ and https://www.w3.org/TR/baggage/. What cannot be read
is as if it had not come: a call never fails for its trace.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

from actors.errors import InvalidArgument

MAX_BAGGAGE_BYTES = 8192
MAX_BAGGAGE_ITEMS = 180

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_MAX_TRACEPARENT = 512
_KEY = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_SAMPLED, _KNOWN_FLAGS = 0x01, 0x03
_VALUE_SAFE = "!#$&'()*+-./:<=>?@[]^_`{|}~"
"""What may stand in a value as it is: all of `baggage-octet` but the percent sign."""


@dataclass(frozen=True, slots=True)
class Trace:
    """
    Where in a trace something happens: the trace, and the span that is at work.

    `str()` of it is a `traceparent` of 55 characters. `InvalidArgument` for ids that are none.
    """

    trace_id: str
    """32 lower-case hex digits, not all 0."""
    span_id: str
    """16 lower-case hex digits, not all 0."""
    flags: int = _SAMPLED
    """Bit 0: sampled. Bit 1: the trace's id is random. Others are 0."""

    def __post_init__(self) -> None:
        known = self.flags & _KNOWN_FLAGS if isinstance(self.flags, int) else -1
        if known < 0 or not _is_whole(f"00-{self.trace_id}-{self.span_id}-{known:02x}"):
            raise InvalidArgument(
                f"{self!r} is no trace: trace_id has 32 lower-case hex digits, span_id 16, neither all 0"
            )
        object.__setattr__(self, "flags", known)

    @classmethod
    def new(cls, *, sampled: bool = True) -> Trace:
        """The beginning of a trace of its own."""
        return cls(f"{random.getrandbits(128) or 1:032x}", _new_span_id(), _SAMPLED if sampled else 0)

    @classmethod
    def parse(cls, text: object) -> Trace | None:
        """The trace in a `traceparent`, of later versions too; None when it is not valid."""
        found = _match(text)
        return None if found is None else cls(found[2], found[3], int(found[4], 16))

    def child(self) -> Trace:
        """Another span of the same trace."""
        return Trace(self.trace_id, _new_span_id(), self.flags)

    @property
    def sampled(self) -> bool:
        """True when whoever began the trace records it."""
        return bool(self.flags & _SAMPLED)

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def _new_span_id() -> str:
    return f"{random.getrandbits(64) or 1:016x}"


def _match(text: object) -> re.Match[str] | None:
    if not isinstance(text, str) or len(text) > _MAX_TRACEPARENT:
        return None
    found = _TRACEPARENT.fullmatch(text)
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5] is not None):
        return None
    return found if found[2].strip("0") and found[3].strip("0") else None


def _is_whole(text: str) -> bool:
    return len(text) == 55 and _match(text) is not None


def write_baggage(items: Mapping[str, str]) -> str:
    """
    *items* as a `baggage` header. `InvalidArgument` for what is no text, for a key with other
    characters than `!#$%&'*+-.^_`|~`, digits and letters, and beyond 180 items or 8192 bytes.
    """
    written = []
    for key, value in items.items():
        if not (isinstance(key, str) and isinstance(value, str) and _KEY.fullmatch(key)):
            raise InvalidArgument(
                f"baggage {key!r}={value!r}: a key is a word of letters, digits and -._ and such"
            )
        written.append(_member(key, value))
    text = ",".join(written)
    if len(written) > MAX_BAGGAGE_ITEMS or len(text) > MAX_BAGGAGE_BYTES:
        limits = f"at most {MAX_BAGGAGE_ITEMS} and {MAX_BAGGAGE_BYTES}"
        raise InvalidArgument(f"baggage of {len(written)} items and {len(text)} bytes; {limits}")
    return text


def read_baggage(text: object) -> dict[str, str]:
    """The items of a `baggage` header, without properties; what is wrong or too much is left out."""
    items: dict[str, str] = {}
    left = MAX_BAGGAGE_BYTES + 1
    if not isinstance(text, str) or len(text) > MAX_BAGGAGE_BYTES:
        return items
    for member in text.split(",")[:MAX_BAGGAGE_ITEMS]:
        key, found, value = member.partition(";")[0].partition("=")
        key = key.strip(" \t")
        if found and key not in items and _KEY.fullmatch(key):
            plain = unquote(value.strip(" \t"), errors="replace")
            # What its sender has not quoted takes more room when it goes on from here.
            left -= len(_member(key, plain)) + 1
            if left < 0:
                break
            items[key] = plain
    return items


def _member(key: str, value: str) -> str:
    return f"{key}={quote(value, safe=_VALUE_SAFE, errors='replace')}"
