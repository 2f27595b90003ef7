"""
Status: what `ps`, `tree` and events look like on a terminal, and whether an app is healthy. Pure functions.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def is_healthy(ps: Mapping[str, Any]) -> bool:
    """False when a service is degraded or failed, or a member waits for room."""
    bad_service = any(service["state"] in ("degraded", "failed") for service in ps["services"])
    return not bad_service and not any(member["state"] == "pending" for member in ps["members"])


def table(rows: Sequence[Sequence[Any]], head: Sequence[str]) -> str:
    """Columns as wide as their widest cell; the last one is not padded."""
    cells = [[str(cell) if cell is not None else "-" for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
    return "\n".join(lines)


def ps_text(ps: Mapping[str, Any]) -> str:
    """Services, then groups where there are any, then members, then the understudies."""
    services = table(
        [
            (s["name"], s["state"], f"{s['ready']}/{s['size']}", s["restarts"], s["reason"])
            for s in ps["services"]
        ],
        ("SERVICE", "STATE", "READY", "RESTARTS", "REASON"),
    )
    groups = table(
        [
            (g["name"], g["state"], g["strategy"], g["restarts"], ", ".join(g["parts"]), g["reason"])
            for g in ps.get("groups", ())
        ],
        ("GROUP", "STATE", "STRATEGY", "RESTARTS", "OF", "REASON"),
    )
    members = table(
        [
            (
                m["name"],
                m["state"],
                m["incarnation"],
                m["pid"],
                _short(m["node"]),
                m["restarts"],
                m["last_exit"] or "-",
                m["reason"],
            )
            for m in ps["members"]
        ],
        ("MEMBER", "STATE", "LIFE", "PID", "NODE", "RESTARTS", "LAST EXIT", "REASON"),
    )
    head = f"app {ps['app']}, stage pid {ps['stage']['pid']}"
    tables = [services, groups, members] if ps.get("groups") else [services, members]
    return "\n\n".join([head, *tables, _understudies_text(ps.get("understudies", ()))])


def _understudies_text(understudies: Iterable[Mapping[str, Any]]) -> str:
    """Who stands ready, then who does not yet: `ready: host-3 (pid 9); warming: host-4 (pid 10)`."""
    by_state: dict[str, list[str]] = {"ready": []}
    for each in understudies:
        service = f", for {each['service']}" if each.get("service") else ""
        by_state.setdefault(each.get("state", "ready"), []).append(
            f"{each['name']} (pid {each['pid']}{service})"
        )
    return "understudies " + "; ".join(
        f"{state}: {', '.join(names) or 'none'}" for state, names in by_state.items()
    )


def description_text(service: Mapping[str, Any]) -> str:
    """One service for `describe`."""
    resources = {name: amount for name, amount in service["resources"].items() if amount}
    facts = [
        ("class", service["class"]),
        ("size", service["size"]),
        (
            "resources of a host",
            ", ".join(f"{name} {amount}" for name, amount in resources.items()) or "none",
        ),
        ("members per host", service["per_host"] or "spread"),
        ("strategy", service["strategy"]),
        ("restart", f"{service['restart']}, {_limits(service)}"),
        ("routing", service["routing"]),
        ("mailbox", f"{service['mailbox']}, then {service['overflow']}"),
        ("concurrency", service["concurrency"]),
        ("times", ", ".join(_times(service))),
    ]
    lines = [service["name"], *_indented(service["doc"], "  "), ""]
    lines += [f"  {what.ljust(20)} {text}" for what, text in facts]
    for method in service["methods"]:
        lines += [
            "",
            f"  {method['name']}{method['signature']}{' (stream)' if method['kind'] == 'stream' else ''}",
        ]
        lines += _indented(method["doc"], "      ")
    return "\n".join(lines)


def _limits(service: Mapping[str, Any]) -> str:
    intensity, backoff = service["intensity"], service["backoff"]
    if intensity is None:
        return f"members that crash often wait {backoff['initial']:g} to {backoff['maximum']:g} s"
    if not isinstance(intensity, Mapping):
        return f"at most {intensity} in {service['period']:g} s"
    allowed = ", ".join(f"{kind} {count}" for kind, count in intensity.items())
    return f"at most {allowed} in {service['period']:g} s"


def _times(service: Mapping[str, Any]) -> Iterable[str]:
    for what, key in (("start", "start_timeout"), ("stop", "shutdown"), ("one message", "handler_timeout")):
        limit = service[key]
        yield f"{what} {'without limit' if isinstance(limit, str) else f'{limit:g} s'}"


def _indented(text: str, indent: str) -> list[str]:
    return [f"{indent}{line}".rstrip() for line in text.splitlines()]


def tree_text(tree: Mapping[str, Any]) -> str:
    """The supervision tree with strategy, state, life, restarts and last exit."""
    return "\n".join([_node_line(tree), *_branches(tree.get("children", ()), "")])


def _branches(children: Sequence[Mapping[str, Any]], indent: str) -> Iterable[str]:
    for place, child in enumerate(children):
        last = place == len(children) - 1
        yield f"{indent}{'└── ' if last else '├── '}{_node_line(child)}"
        below = indent + ("    " if last else "│   ")
        yield from _branches(child.get("children", ()), below)
        if child.get("hidden"):
            yield f"{below}… and {child['hidden']} more"


def _node_line(node: Mapping[str, Any]) -> str:
    parts = [node["name"]]
    if node.get("strategy"):
        parts.append(f"[{node['strategy']}]")
    if "state" in node:
        parts.append(node["state"])
    if "ready" in node:
        parts.append(f"{node['ready']}/{node['size']}")
    if node.get("incarnation") is not None:
        parts.append(f"life {node['incarnation']}")
    if node.get("pid"):
        parts.append(f"pid {node['pid']}")
    if node.get("restarts"):
        parts.append(f"{node['restarts']} restarts")
    if node.get("last_exit"):
        parts.append(f"last exit: {node['last_exit']}")
    if node.get("reason"):
        parts.append(f"({node['reason']})")
    if node.get("inside"):
        parts.append(f"inside: {node['inside']}")
    return "  ".join(parts)


_SENTENCES = {
    "member.started": "{member} started (life {incarnation}, pid {pid})",
    "member.child_exited": "{member} ended: {reason}",
    "member.restarting": "{member} is being restarted (restart {restarts})",
    "member.backing_off": "{member} backs off for {delay} s: {reason}",
    "member.start_failed": "{member} failed to start: {reason}",
    "member.pending": "{member} waits: {reason}",
    "member.gave_up": "{member}: too many restarts",
    "member.killed": "{member} is killed by order (pid {pid})",
    "member.shutdown_overrun": "{member} did not stop within its shutdown time",
    "service.failed": "service {service} has failed: {reason}",
    "group.child_exited": "{child} gave up in group {group}: {reason}",
    "group.start_failed": "{child} failed to start in group {group}: {reason}",
    "group.restarting": "group {group} restarts {child} (restart {restarts})",
    "group.gave_up": "group {group}: too many restarts of {child}",
    "group.failed": "group {group} has failed: {reason}",
    "group.reset": "group {group} is reset",
    "app.gave_up": "{app} has given up: {reason}",
    "service.scaled": "service {service} scales from {before} to {size}",
    "service.restarted": "service {service} is restarted by order",
    "log.failed": "what {child} says cannot be written down: {reason}",
    "group.restarted": "group {group} is restarted by order",
    "service.reset": "service {service} is reset",
    "stage.returned": "the stage is back (epoch {epoch}): it took over {hosts} hosts with {members} members",
    "service.stopped": "service {service} stopped",
    "host.died": "host {host} of {service} (pid {pid}) died: {reason}",
    "host.explained": "host {host} of {service} (pid {pid}) died, it turns out: {reason}",
    "member.hung": "{child} hung: {reason}",
    "understudy.ready": "understudy {host} (pid {pid}) is ready for {service}",
    "understudy.warm_failed": "understudy {host} (pid {pid}) could not get ready for {service}: {reason}",
    "understudy.hung": "understudy {host} (pid {pid}) hung: {reason}",
    "member.crashed": "{member} crashed (life {incarnation}): {reason}",
    "node.lost": "node {node} is lost: {reason}",
    "host.failed": "host {host} did not come up: {reason}",
    "understudy.died": "understudy {host} (pid {pid}) died: {reason}",
    "app.ready": "{app} is ready",
    "app.stopping": "{app} is stopping",
    "app.stopped": "{app} has stopped",
    "message.dead_lettered": "dead letter: {method} to {target} ({reason})",
    "frame.rejected": "frame rejected: {reason} ({size} bytes)",
}


def event_text(event: Mapping[str, Any]) -> str:
    """One line for one event; below it a traceback or the stacks of a process, where it has one."""
    clock = time.strftime("%H:%M:%S", time.localtime(event["time"]))
    sentence = _SENTENCES.get(event["event"])
    if sentence is not None:
        text = f"{clock}  {sentence.format_map(_Missing(event))}"
    else:
        hidden = ("number", "time", "event", "traceback", "left_out")
        details = "  ".join(f"{key}={value}" for key, value in event.items() if key not in hidden)
        text = f"{clock}  {event['event']}  {details}"
    if event.get("left_out"):
        text += f"  (and {event['left_out']} more like it)"
    return f"{text}\n{event['traceback']}" if event.get("traceback") else text


class _Missing(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"


def _short(node: str | None) -> str:
    return node[:8] if node else "-"
