"""The shared state: sequence, gaps, epochs, and what a snapshot may and may not delete."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wrapper.monitor.messages import (
    Client,
    Envelope,
    Garbage,
    Offer,
    Report,
    Settings,
    Watch,
    WatchRequest,
    decode_body,
    decode_envelope,
    encode,
)
from wrapper.monitor.state import (
    ClusterGone,
    ClusterState,
    ClusterUpdate,
    Gap,
    HealthUpdate,
    HostHealth,
    SharedState,
    Topology,
    TopologyUpdate,
    adopt,
    apply,
    missed,
)

CLUSTER = ClusterState("1.1", watches=("w",), health={"a:1": HostHealth("a:1")})


def followed(epoch: int = 1) -> SharedState:
    return adopt(SharedState(), epoch, (CLUSTER,), {"1.1": 5})


def test_an_update_follows_the_snapshot() -> None:
    state = apply(followed(), 1, "1.1", 6, HealthUpdate(HostHealth("a:1", silent=1)))
    assert state.clusters["1.1"].health["a:1"].silent == 1
    assert state.seqs == {"1.1": 6}
    state = apply(state, 1, "1.1", 7, TopologyUpdate(Topology(writer="a:1", term=1)))
    assert state.clusters["1.1"].topology.writer == "a:1"


def test_what_the_snapshot_already_holds_is_dropped() -> None:
    state = followed()
    assert apply(state, 1, "1.1", 5, HealthUpdate(HostHealth("a:1", silent=9))) is state


def test_a_gap_and_a_new_epoch_ask_for_a_snapshot() -> None:
    with pytest.raises(Gap):
        apply(followed(), 1, "1.1", 7, ClusterUpdate(CLUSTER))
    with pytest.raises(Gap):
        apply(followed(), 2, "1.1", 1, ClusterUpdate(CLUSTER))


def test_a_smaller_epoch_is_ignored() -> None:
    state = followed(epoch=2)
    assert apply(state, 1, "1.1", 6, ClusterUpdate(CLUSTER)) is state
    assert adopt(state, 1, (), {}) is state


def test_an_unknown_kind_consumes_its_seq() -> None:
    state = apply(followed(), 1, "1.1", 6, None)
    assert state.seqs["1.1"] == 6
    assert state.clusters == followed().clusters


def test_a_new_epoch_deletes_nothing_until_it_knows_better() -> None:
    state = adopt(followed(), 2, (), {})
    assert state.clusters == {"1.1": CLUSTER}
    assert state.confirmed == frozenset()
    renewed = ClusterState("2.1", watches=("w",))
    state = adopt(state, 2, (renewed,), {"2.1": 1})
    assert state.clusters == {"2.1": renewed}
    assert state.by_watch("w") is renewed


def test_gone_is_explicit() -> None:
    state = apply(followed(), 1, "1.1", 6, ClusterGone())
    assert state.clusters == {}
    assert state.by_watch("w") is None


def test_a_heartbeat_shows_a_loss_before_a_quiet_spell() -> None:
    followed_topics = frozenset({"1.1"})
    assert not missed(followed(), 1, {"1.1": 5, "1.2": 99}, followed_topics)
    assert missed(followed(), 1, {"1.1": 6}, followed_topics)
    assert missed(followed(), 2, {}, followed_topics)
    assert not missed(followed(epoch=3), 2, {"1.1": 99}, followed_topics)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.data())
def test_lost_and_repeated_messages_never_leave_a_wrong_state(deliveries: list[int], data: st.DataObject) -> None:
    """However messages are lost or repeated: whoever asks for a snapshot at each gap ends up with what was published."""
    published = [CLUSTER]
    for count in range(len(deliveries)):
        published.append(ClusterState("1.1", watches=("w",), health={"a:1": HostHealth("a:1", failures=count)}))
    state = adopt(SharedState(), 1, (CLUSTER,), {"1.1": 0})
    for seq, copies in enumerate(deliveries, start=1):
        for _ in range(copies):
            try:
                state = apply(state, 1, "1.1", seq, HealthUpdate(published[seq].health["a:1"]))
            except Gap:
                state = adopt(state, 1, (published[seq],), {"1.1": seq})
        if copies:
            assert state.clusters["1.1"] == published[seq]
    if missed(state, 1, {"1.1": len(deliveries)}, frozenset({"1.1"})):
        state = adopt(state, 1, (published[-1],), {"1.1": len(deliveries)})
    assert state.clusters["1.1"] == published[-1]


def test_only_the_accepted_writer_proves_that_it_is_one() -> None:
    health = {key: HostHealth(key, role=role, proved_at=7.0) for key, role in (("a", "writer"), ("b", "writer"), ("c", "reader"))}
    cluster = ClusterState("t", topology=Topology(writer="b"), health=health)
    assert [cluster.proved(key) for key in "abcd"] == [None, 7.0, 7.0, None]
    assert cluster.writer_proved_at == 7.0


# -- the wire ------------------------------------------------------------------------------------------------------------------


def test_a_message_survives_the_wire() -> None:
    report = Report(Watch("postgresql", "a", 1), "a:1", at=3.5)
    envelope = decode_envelope(encode(report, epoch=7, topic="t", seq=9))
    assert (envelope.epoch, envelope.topic, envelope.seq) == (7, "t", 9)
    assert decode_body(envelope) == report


def test_an_unknown_kind_and_unknown_fields_are_skipped() -> None:
    envelope = decode_envelope(encode(Report(Watch("postgresql", "a", 1), "a:1", at=3.5)))
    assert decode_body(Envelope("from_the_future", 1, "t", 1, envelope.body)) is None


@example(b"\x95\xa4\x00\x00\x00\x80")
@example(b"\x95\xa1a\x00\xa1a\x00" + b"\x91" * 100_000)
@given(st.binary(max_size=200))
def test_garbage_is_told_apart(data: bytes) -> None:
    try:
        decode_body(decode_envelope(data))
    except Garbage:
        pass


def test_login_values_have_no_repr() -> None:
    offer = Offer({"user": "app", "password": "s3cret"})
    request = WatchRequest(Client(1, 2, "t"), Watch("postgresql", "a", 1), "pg", "psycopg", Settings(), Topology(), offer)
    assert "s3cret" not in f"{offer} {offer!r} {request!r}"
