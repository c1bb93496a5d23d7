"""What `status` tells: one document of plain values, without secrets. Times are seconds; ages count back from the answer."""

from __future__ import annotations

import os
from time import monotonic, time
from typing import TYPE_CHECKING, Any

import msgspec

from wrapper.monitor.state import HostHealth, TopologyHost
from wrapper.version import __version__

if TYPE_CHECKING:
    from monitor_service.cluster import Cluster
    from monitor_service.service import Service


def document(service: Service, asker: str) -> dict[str, Any]:
    """Return the document that `StatusRequest` is answered with. Who is not an operator sees nothing of other owners."""
    context = service.context
    now = monotonic()
    sees_all = service.gate.rules.is_operator(asker)
    clusters = [cluster for cluster in context.clusters.values() if sees_all or cluster.owner == asker]
    topics = {cluster.topic for cluster in clusters}
    return {
        "version": __version__,
        "pid": os.getpid(),
        "epoch": service.epoch,
        "mode": service.options.mode,
        "directory": str(service.paths.directory),
        "uptime": round(now - service.started, 3),
        "at": time(),
        "monotonic": now,
        "draining": service.draining,
        "shared": service.gate.rules.shared,
        "loop": {
            "pauses": context.guard.pauses,
            "longest_lag": round(context.guard.longest, 3),
            "lag": round(context.guard.lag, 3),
        },
        "limits": msgspec.to_builtins(service.options.limits),
        "counters": {**service.gate.counters, **service.control.counters, **context.publisher.counters, **context.refused},
        "restarts": context.supervisor.restarts,
        "actors": [
            {"name": name, "restarts": record.restarts, "last_error": record.last_error}
            for name, record in context.supervisor.running.items()
            if sees_all
        ],
        "leases": [
            {
                "owner": lease.owner,
                "pid": lease.client.pid,
                "expires_in": round(lease.expires - now, 3),
                "watches": sorted(lease.interests),
                "connections": sum(lease.connections.values()),
            }
            for lease in context.registry.leases.values()
            if sees_all or lease.owner == asker
        ],
        "clusters": [_cluster(cluster, now) for cluster in clusters],
        "journal": [msgspec.to_builtins(entry) for entry in context.publisher.ring if sees_all or entry.cluster in topics],
    }


def _cluster(cluster: Cluster, now: float) -> dict[str, Any]:
    view = cluster.view
    state = cluster.state()
    members = {member.key: member for member in view.topology.hosts}
    sessions = sum(actor.has_session for actor in cluster.host_actors.values())
    membership_session = cluster.topology_actor is not None and cluster.topology_actor.has_session
    return {
        "topic": cluster.topic,
        "owner": cluster.owner,
        "dialect": cluster.dialect.code,
        "watches": list(state.watches),
        "clients": state.clients,
        "writer": view.writer.writer,
        "term": view.writer.term,
        "conflict": list(view.writer.conflict),
        "searching_for": _round(cluster.outage()),
        "membership_from": view.read_from,
        "membership_age": _age(view.read_at, now) if view.read_at else None,
        "membership_trouble": cluster.topology_actor.detail if cluster.topology_actor else "",
        "settings": msgspec.to_builtins(cluster.settings),
        "offers": len(cluster.logins),
        "probe_sessions": sessions + membership_session,
        "hosts": [_host(cluster, health, members.get(key), now) for key, health in sorted(state.health.items())],
    }


def _host(cluster: Cluster, health: HostHealth, member: TopologyHost | None, now: float) -> dict[str, Any]:
    key = health.key
    actor = cluster.host_actors.get(key)
    return {
        "key": key,
        "id": member.id if member else "",
        "role": health.role,
        "is_writer": key == cluster.view.writer.writer,
        "evidence": evidence_text(health.kind, health.accepting, health.failures, health.silent, health.detail),
        "kind": health.kind,
        "accepting": health.accepting,
        "failures": health.failures,
        "silent": health.silent,
        "failing_for": _age(health.failing_since, now),
        "last_answer_age": _age(health.last_answer, now),
        "proof_age": _age(health.proved_at, now),
        "rank": health.rank,
        "address": health.address,
        "interval": health.interval,
        "connections": health.connections,
        "detail": health.detail,
        "lag_ms": member.lag_ms if member else None,
        "cpu": member.cpu if member else None,
        "probes": actor.probes if actor else 0,
        "session": actor.has_session if actor else False,
    }


def evidence_text(kind: str, accepting: bool, failures: int, silent: int, detail: str) -> str:
    """Return one phrase for a host's evidence."""
    if not kind:
        return f"no news: {detail}" if detail else "not asked yet"
    if kind == "answered":
        return f"answers{f' ({detail})' if detail else ''}" if accepting else f"answers, not accepting: {detail}"
    if silent:
        return f"{silent} silent probe{'s' if silent > 1 else ''} in a row"
    return f"{failures} failed probe{'s' if failures > 1 else ''}: {detail or kind}"


def _age(at: float | None, now: float) -> float | None:
    return None if at is None else round(now - at, 3)


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
