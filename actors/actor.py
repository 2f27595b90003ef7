"""
Actors: the class users derive from, and which of its methods are messages.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args
from weakref import WeakKeyDictionary

from actors.errors import InvalidArgument, nearest
from actors.exit import Exit, Terminated
from actors.idempotency import Idempotency, Naming, idempotency_of

if TYPE_CHECKING:
    from actors.context import Context
    from actors.interceptors import Interceptor

HOOKS = frozenset({"on_start", "on_stop", "on_terminated"})
RESERVED = frozenset(
    {"ask", "tell", "stream", "options", "stop", "kill", "pinned", "is_alive", "wait_started", "wait_stopped"}
    | {"member", "broadcast", "name"}
)
"""Names that mean something on a `Ref`, so that no message can have them."""


Overflow = Literal["reject", "drop_oldest", "block"]
OVERFLOWS: tuple[str, ...] = get_args(Overflow)


class Actor:
    """
    Base of all actors: an instance handles one message at a time.

    Public methods are messages. `self.context` is there before `__init__` runs, and
    subclasses need not call `super().__init__()`. Any exception that escapes a handler
    goes to the caller and crashes the actor, unless its type stands in `expected`.
    """

    expected: ClassVar[tuple[type[BaseException], ...]] = ()
    """Exception types that are answers, not crashes."""
    mailbox: ClassVar[int] = 1000
    """Messages that may wait; what happens to one more, `overflow` says."""
    overflow: ClassVar[Overflow] = "reject"
    """
    What happens to a message when the mailbox is full.

    "reject": it is refused with `MailboxFull`. "drop_oldest": the oldest of the caller who has most
    waiting becomes a dead letter, who asked it gets `MailboxFull`. "block": it waits for room within
    its deadline, a tell's reply resolves when there was some, and its process sends no more to this
    actor until then. `tell` itself never blocks: who does not wait for its reply may have
    1,000 messages wait inside one process, then `MailboxFull`; between processes, 256 MB.

    Callers take turns in the mailbox. Where one has filled it, "reject" refuses that one: the message
    of another takes the place of its youngest, which becomes a dead letter.
    """
    concurrency: ClassVar[int] = 1
    """Handlers that may run at the same time."""
    handler_timeout: ClassVar[float] = math.inf
    """Seconds that one handler may run, waiting included; beyond them the actor ends with `Exit("hung")`."""
    own_thread: ClassVar[bool] = False
    """True gives `__init__` and all `def` handlers one thread for life (sqlite, CUDA)."""
    ask_timeout: ClassVar[float | None] = 5.0
    """Seconds an ask waits for its outcome by default; None for ever."""
    interceptors: ClassVar[tuple[Interceptor, ...]] = ()
    """What stands around its handlers, what they send, and its spawn; see `actors.interceptors`."""
    is_supervisor: ClassVar[bool] = False
    """True for what supervises and controls: messages to it are orders, and it passes no interceptors."""

    context: Context

    async def on_start(self) -> None:
        """Runs after `__init__`, in the actor's own turn, before the first message."""

    async def on_stop(self, exit: Exit) -> None:
        """Runs on clean stops, within the shutdown time; never after a crash or a failed start."""

    async def on_terminated(self, terminated: Terminated) -> None:
        """A watched actor has ended for good. Ignored unless overridden."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in sorted(RESERVED & _functions(cls).keys()):
            raise InvalidArgument(f"{cls.__name__}.{name}: the name {name!r} is taken by Ref; choose another")
        _check_defaults(cls)


MethodKind = Literal["async", "sync", "stream", "sync_stream"]


@dataclass(frozen=True, slots=True)
class Method:
    """One message an actor understands."""

    name: str
    function: Callable[..., Any]
    kind: MethodKind
    is_wrapped: bool
    """True behind a decorator: Python would find a misfit only after the decorator's code has run."""
    idempotency: Idempotency | None = None
    """Where it may run again for the same call."""

    def misfit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """Why the arguments do not fit, or None."""
        try:
            _signature_of(self.function).bind(None, *args, **kwargs)
        except TypeError as error:
            return str(error)
        return None


@lru_cache(maxsize=1024)
def _signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """What callers must give: a decorator's own parameters; behind `*args, **kwargs`, the wrapped ones."""
    signature = inspect.signature(function, follow_wrapped=False)
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    takes_anything = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} <= kinds
    if takes_anything and hasattr(function, "__wrapped__"):
        return _signature_of(function.__wrapped__)
    return signature


_tables: WeakKeyDictionary[type, dict[str, Method]] = WeakKeyDictionary()


def methods_of(cls: type) -> dict[str, Method]:
    """
    The messages of an actor class by name.

    Functions without a leading underscore on the class or its bases below `Actor`;
    hooks, properties and stored callables are none.
    """
    table = _tables.get(cls)
    if table is None:
        table = {
            name: method
            for name, method in _functions(cls).items()
            if not name.startswith("_") and name not in HOOKS
        }
        _tables[cls] = table
    return table


_idempotent: WeakKeyDictionary[type, frozenset[str]] = WeakKeyDictionary()


def idempotent_methods_of(cls: type) -> frozenset[str]:
    """The names of the messages of *cls* that are `@idempotent`."""
    names = _idempotent.get(cls)
    if names is None:
        names = frozenset(name for name, method in methods_of(cls).items() if method.idempotency)
        _idempotent[cls] = names
    return names


_namings: WeakKeyDictionary[type, Naming | None] = WeakKeyDictionary()


def naming_of(cls: type) -> Naming | None:
    """What refs to actors of *cls* have to know; None without idempotent methods."""
    if cls not in _namings:
        methods = idempotent_methods_of(cls)
        _namings[cls] = Naming(methods) if methods else None
    return _namings[cls]


def timer_methods_of(cls: type) -> dict[str, Method]:
    """What timers may call: the messages, and private methods too."""
    return {
        name: method
        for name, method in _functions(cls).items()
        if name not in HOOKS and not name.startswith("__")
    }


def hook_of(cls: type, name: str) -> Method:
    """One of the hooks, as a method to run."""
    function = getattr(cls, name)
    return _method(name, function)


def _functions(cls: type) -> dict[str, Method]:
    found: dict[str, Method] = {}
    for base in reversed(cls.__mro__):
        if base is object or base is Actor:
            continue
        for name, value in vars(base).items():
            if inspect.isfunction(value):
                found[name] = _method(name, value)
            else:
                found.pop(name, None)
    return found


def _method(name: str, function: Callable[..., Any]) -> Method:
    return Method(
        name, function, _kind_of(function), hasattr(function, "__wrapped__"), idempotency_of(function)
    )


def _kind_of(function: Callable[..., Any]) -> MethodKind:
    plain = inspect.unwrap(function)
    if inspect.isasyncgenfunction(function) or inspect.isasyncgenfunction(plain):
        return "stream"
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(plain):
        return "async"
    if inspect.isgeneratorfunction(plain):
        return "sync_stream"
    return "sync"


def has_sync_methods(cls: type) -> bool:
    """True when a handler of *cls* runs on a thread, so `__init__` does too."""
    return any(method.kind in ("sync", "sync_stream") for method in methods_of(cls).values())


def unknown_method(cls: type, name: str) -> str:
    """One line about a method that is not there, with the nearest one that is."""
    return f"{cls.__name__} has no method {name!r}{nearest(name, methods_of(cls))}"


_signatures: WeakKeyDictionary[type, inspect.Signature] = WeakKeyDictionary()


def signature_of(cls: type) -> inspect.Signature:
    """The signature of a class's constructor."""
    found = _signatures.get(cls)
    if found is None:
        # Of a class without an `__init__` it takes 130 µs: Python parses a text.
        found = _signatures[cls] = inspect.signature(cls)
    return found


def check_class(cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """`InvalidArgument` unless *cls* is an actor class and *args*, *kwargs* fit its constructor."""
    if not (isinstance(cls, type) and issubclass(cls, Actor)):
        raise InvalidArgument(f"actor_class={cls!r} is not a subclass of Actor")
    try:
        signature_of(cls).bind(*args, **kwargs)
    except TypeError as error:
        raise InvalidArgument(f"the arguments do not fit {cls.__name__}: {error}") from None


def check_handler_timeout(owner: str, value: object) -> None:
    """`InvalidArgument` unless *value* is seconds above 0, or infinity."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise InvalidArgument(f"{owner}handler_timeout={value!r} must be seconds above 0, or math.inf")


def check_overflow(owner: str, value: object) -> None:
    """`InvalidArgument` unless *value* is one of `OVERFLOWS`."""
    if value not in OVERFLOWS:
        known = ", ".join(repr(word) for word in OVERFLOWS) + nearest(str(value), OVERFLOWS)
        raise InvalidArgument(f"{owner}overflow={value!r} is not one of {known}")


def check_interceptors(owner: str, value: object) -> tuple[Interceptor, ...]:
    """*value*, and `InvalidArgument` unless it is a tuple of interceptors."""
    if value == ():
        return ()
    from actors.interceptors import Interceptor
    from actors.tracing import carriage

    if not isinstance(value, tuple) or not all(isinstance(one, Interceptor) for one in value):
        raise InvalidArgument(f"{owner}interceptors={value!r} must be a tuple of Interceptors")
    carriage.on = True
    return value


def _check_defaults(cls: type[Actor]) -> None:
    check_interceptors(cls.__name__ + ".", cls.interceptors)
    for field, value in (("mailbox", cls.mailbox), ("concurrency", cls.concurrency)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidArgument(f"{cls.__name__}.{field}={value!r} must be an integer of at least 1")
    check_overflow(cls.__name__ + ".", cls.overflow)
    check_handler_timeout(cls.__name__ + ".", cls.handler_timeout)
    timeout = cls.ask_timeout
    if timeout is not None and (not isinstance(timeout, (int, float)) or math.isnan(timeout) or timeout <= 0):
        raise InvalidArgument(f"{cls.__name__}.ask_timeout={timeout!r} must be seconds above 0, or None")
    expected = cls.expected
    if not isinstance(expected, tuple) or not all(
        isinstance(e, type) and issubclass(e, BaseException) for e in expected
    ):
        raise InvalidArgument(f"{cls.__name__}.expected={expected!r} must be a tuple of exception classes")
