"""Moving the lab's writer: who can be promoted, in what order things happen, and how the others join again."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from wrapper.testing.cluster import USUAL_CPU, USUAL_LAG_MS, Cluster, Instance
from wrapper.testing.errors import LabError

# What a reader may need to find its writer before it is given a fresh copy of the data.
_PATIENCE = 3.0


def end_writer(cluster: Cluster, target: str | None) -> float:
    """Shut the writer down, as the beginning of a failover; one that hangs or is down already is left alone. Returns the moment
    from which there is none (CLOCK_MONOTONIC)."""
    server = cluster.writer.server
    _candidate(cluster, target)  # that nobody can follow is an error now, not when the writer is gone
    ended_at = time.monotonic()
    if server.is_responsive:
        # An orderly shutdown waits for every reader, so one that hangs would hold it up.
        server.stop(patience=0.05 if any(reader.server.is_hung for reader in cluster.readers()) else 3.0)
        cluster.publish()
    return ended_at


def promote(cluster: Cluster, target: str | None = None, drop_sessions: bool | None = None) -> dict[str, Any]:
    """Have a reader become the writer. Aurora's order: promote, restart (the sessions are dropped), tell the cluster."""
    started = time.monotonic()
    new, old = _candidate(cluster, target), cluster.writer
    drop = cluster.options.drop_sessions if drop_sessions is None else drop_sessions
    promoted_at = new.server.promote(drop_sessions=drop)
    timings = {"promoted": promoted_at - started}
    cluster.writer_id = new.id
    old.is_stale = old.server.is_hung
    cluster.publish()
    timings["published"] = time.monotonic() - started
    return {"old_writer": old.id, "new_writer": new.id, "at": time.monotonic(), "promoted_at": promoted_at, "timings": timings}


def repoint(cluster: Cluster) -> None:
    """Have the readers follow the writer; one that hangs or is down finds it when it comes back."""
    for reader in cluster.readers():
        if not reader.server.was_writer:
            reader.server.follow(cluster.writer.server)


def _candidate(cluster: Cluster, target: str | None) -> Instance:
    if target is not None:
        instance = cluster.resolve(target)
        if instance is cluster.writer:
            raise LabError(f"{instance.id} is the writer already: name a reader")
        if not instance.is_usable:
            raise LabError(f"{instance.id} cannot be promoted: it does not run as a reader; start or rejoin it first")
        return instance
    usable = [reader for reader in cluster.heirs() if reader.is_usable]
    if not usable:
        raise LabError("no reader is running: nobody can be promoted")
    return max(usable, key=lambda reader: (reader.server.position(), reader.id))


def stop(cluster: Cluster, name: str) -> None:
    """Shut an instance down in order, and have the cluster know it."""
    cluster.stop(name)
    cluster.publish()


def start(cluster: Cluster, name: str) -> None:
    """Start an instance again; it joins as a reader if another one is the writer."""
    instance = _member(cluster, name)
    if instance.server.is_running and not instance.is_stale:
        raise LabError(f"{instance.id} is {'hung: resume it' if instance.server.is_hung else 'running'}")
    _start(cluster, instance)
    cluster.publish()


def rejoin(cluster: Cluster, name: str) -> None:
    """Make any instance but the writer a proper reader, whatever state it is in."""
    instance = _member(cluster, name)
    if instance.id == cluster.writer_id:
        raise LabError(f"{instance.id} is the writer: name another instance")
    _start(cluster, instance)
    cluster.publish()


def remove(cluster: Cluster, name: str) -> None:
    """Shut a reader down and have the cluster forget it, name and all."""
    instance = _member(cluster, name)
    if instance.id == cluster.writer_id:
        raise LabError(f"{instance.id} is the writer: fail over first, or name another instance")
    instance.server.stop()
    instance.is_member = False
    cluster.publish()


def add(cluster: Cluster, name: str) -> None:
    """Start an instance that was removed as a new reader; the cluster lists it once it follows the writer."""
    instance = cluster.resolve(name)
    if instance.is_member:
        raise LabError(f"{instance.id} is part of the cluster already: remove it first")
    _start(cluster, instance)
    instance.is_member = True
    cluster.publish()


def _member(cluster: Cluster, name: str) -> Instance:
    instance = cluster.resolve(name)
    if not instance.is_member:
        raise LabError(f"{instance.id} was removed: add it first")
    return instance


def rejoin_all(cluster: Cluster, instances: Iterable[Instance]) -> None:
    """Make several instances proper readers."""
    for instance in instances:
        rejoin(cluster, instance.id)


def rejoin_old_writers(cluster: Cluster) -> None:
    """Have every former writer that is down, or still up in its old role, join as a reader; hung ones stay hung."""
    for instance in cluster.readers():
        if not instance.server.is_hung and (instance.is_stale or instance.server.was_writer):
            _start(cluster, instance)
    cluster.publish()


def reset(cluster: Cluster) -> None:
    """Undo every fault: one writer, all others replicating from it."""
    cluster.mend()
    for instance in cluster.instances.values():
        server = instance.server
        instance.is_member = True
        if server.is_hung and not instance.is_stale:
            cluster.resume(instance.id)
        server.vacate()
        instance.cpu, instance.lag_ms = USUAL_CPU, USUAL_LAG_MS
        if server.refuses_logins:
            server.refuse_logins(False)
    writer = cluster.writer.server
    if not writer.is_running:
        _start(cluster, cluster.writer)
    for reader in cluster.readers():
        # A promotion that was undone before it was over has left them with the writer that was.
        if reader.is_usable and not reader.server.was_writer and reader.server.source is not writer:
            reader.server.follow(writer)
    following = writer.followers([reader.server for reader in cluster.readers() if reader.is_usable])
    for reader in cluster.readers():
        if reader.is_stale or not reader.server.is_running:
            _start(cluster, reader)
        elif reader.id not in following:
            _ensure_following(cluster, reader)
    if cluster.engine.certificates is not None:
        cluster.expire_certificate(False)
    cluster.flip_name()
    cluster.publish()


def _start(cluster: Cluster, instance: Instance) -> None:
    server, writer = instance.server, cluster.writer.server
    if server is writer:
        server.start(None)
        return
    if not writer.is_responsive:
        if not server.is_running and not server.was_writer:
            _start_reader(cluster, instance)  # it can wait for a writer
            return
        raise LabError(f"{instance.id} cannot join: the writer {writer.id} is not available; start it, or fail over first")
    if server.is_hung:
        server.kill()
    server.stop()
    if server.was_writer:
        server.convert(writer)
    try:
        _start_reader(cluster, instance)
    except LabError:
        # A server that has received more than the new writer ever had may not even start.
        _start_copy(cluster, instance)
    _ensure_following(cluster, instance)


def _start_reader(cluster: Cluster, instance: Instance) -> None:
    instance.is_stale = False
    instance.server.start(cluster.writer.server)


def _start_copy(cluster: Cluster, instance: Instance) -> None:
    """Start a reader on a fresh copy of the writer's data; one that received more than that ever had can follow no other way."""
    instance.server.kill()
    instance.server.clone(cluster.writer.server)
    _start_reader(cluster, instance)


def _ensure_following(cluster: Cluster, instance: Instance) -> None:
    server, writer = instance.server, cluster.writer.server
    if not server.follows(writer, _PATIENCE):
        _start_copy(cluster, instance)
        if not server.follows(writer, 20.0):
            raise LabError(f"{server.id} does not replicate from {writer.id}")
