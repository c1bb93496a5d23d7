"""Where a connect to an endpoint is to lead, and what is tried next: `wrapper.decisions.opening`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrapper.decisions.opening import (
    ENDPOINT,
    Aim,
    Attempt,
    Choices,
    GiveUp,
    Opening,
    Wait,
    aim_of,
    candidates,
    first_step,
    is_doubted,
    is_outranked,
    is_right,
    next_step,
)
from wrapper.errors import AwsWrapperError
from wrapper.hosts import HostAvailability, HostInfo, HostRole
from wrapper.monitor.state import ClusterState, Topology
from wrapper.urls import EndpointKind, parse_endpoint

DOMAIN = "abc.us-east-1.rds.amazonaws.com"
ELSEWHERE = "abc.eu-west-1.rds.amazonaws.com"
WRITER_ENDPOINT = parse_endpoint(f"db.cluster-{DOMAIN}")
READER_ENDPOINT = parse_endpoint(f"db.cluster-ro-{DOMAIN}")
GLOBAL_ENDPOINT = parse_endpoint("db.global-abc.global.rds.amazonaws.com")
A_WRITER = Aim(HostRole.WRITER, HostRole.WRITER)
A_READER = Aim(HostRole.READER, HostRole.READER)
NOTHING = Aim()


def host(name: str, role: HostRole = HostRole.READER, domain: str = DOMAIN, *, up: bool = True) -> HostInfo:
    availability = HostAvailability.AVAILABLE if up else HostAvailability.UNAVAILABLE
    return HostInfo(f"{name}.{domain}", 5432, role, availability)


WRITER = host("a", HostRole.WRITER)
READERS = (host("b"), host("c"))


@pytest.mark.parametrize(
    ("endpoint", "choices", "hosts", "is_initial", "expected"),
    [
        (WRITER_ENDPOINT.host, Choices(), (), True, A_WRITER),
        (WRITER_ENDPOINT.host, Choices(), (WRITER,), False, A_WRITER),
        (READER_ENDPOINT.host, Choices(), (), True, A_READER),
        (f"db.cluster-custom-{DOMAIN}", Choices(), (WRITER,), True, NOTHING),
        (f"a.{DOMAIN}", Choices(), (WRITER,), True, NOTHING),
        (f"db.proxy-{DOMAIN}", Choices(), (WRITER,), True, NOTHING),
        ("10.0.0.1", Choices(), (WRITER,), True, NOTHING),
        ("db.example.com", Choices(), (WRITER,), True, NOTHING),
        # What the user chose wins, on the initial connection.
        (READER_ENDPOINT.host, Choices(substitute="none"), (), True, Aim(None, HostRole.READER)),
        (READER_ENDPOINT.host, Choices(verify="none"), (), True, Aim(HostRole.READER, None)),
        (READER_ENDPOINT.host, Choices("none", "none"), (), False, A_READER),
        (f"db.cluster-custom-{DOMAIN}", Choices("any", "reader"), (), True, Aim(HostRole.UNKNOWN, HostRole.READER)),
        ("10.0.0.1", Choices("writer", "writer"), (), True, A_WRITER),
        # The writer endpoint of a region without a writer.
        (WRITER_ENDPOINT.host, Choices(), (host("a", HostRole.WRITER, ELSEWHERE),), True, A_WRITER),
        (WRITER_ENDPOINT.host, Choices(None, None, "none", "none"), (host("a", HostRole.WRITER, ELSEWHERE),), True, NOTHING),
        (WRITER_ENDPOINT.host, Choices(None, None, "none", "none"), (WRITER,), True, A_WRITER),
        # Not known to be one.
        (WRITER_ENDPOINT.host, Choices(None, None, "none", "none"), (), True, A_WRITER),
        (WRITER_ENDPOINT.host, Choices(None, None, "none", "none"), (HostInfo(f"x.cluster-{ELSEWHERE}"),), True, A_WRITER),
        (WRITER_ENDPOINT.host, Choices(None, None, "none", "none"), (HostInfo("db.example.com"),), True, A_WRITER),
    ],
)
def test_aim(endpoint: str, choices: Choices, hosts: tuple[HostInfo, ...], is_initial: bool, expected: Aim) -> None:
    assert aim_of(parse_endpoint(endpoint), choices, hosts, is_initial=is_initial) == expected


def test_a_global_endpoint_stands_for_the_writer() -> None:
    assert GLOBAL_ENDPOINT.kind is EndpointKind.GLOBAL_CLUSTER
    assert aim_of(GLOBAL_ENDPOINT, Choices(), (), is_initial=True) == A_WRITER


@pytest.mark.parametrize(
    ("choices", "kind", "parameter"),
    [
        (Choices("writer"), EndpointKind.READER_CLUSTER, "endpoint_substitution_role='writer'"),
        (Choices("writer"), EndpointKind.CUSTOM_CLUSTER, "endpoint_substitution_role='writer'"),
        (Choices("reader"), EndpointKind.WRITER_CLUSTER, "endpoint_substitution_role='reader'"),
        (Choices("reader"), EndpointKind.GLOBAL_CLUSTER, "endpoint_substitution_role='reader'"),
        (Choices("any"), EndpointKind.READER_CLUSTER, "endpoint_substitution_role='any'"),
        (Choices("reader"), EndpointKind.INSTANCE, "endpoint_substitution_role='reader'"),
        (Choices(None, "reader"), EndpointKind.WRITER_CLUSTER, "verify_opened_connection_type='reader'"),
        (Choices(None, "writer"), EndpointKind.READER_CLUSTER, "verify_opened_connection_type='writer'"),
    ],
)
def test_impossible_choices(choices: Choices, kind: EndpointKind, parameter: str) -> None:
    with pytest.raises(AwsWrapperError, match=f"{parameter} does not go with a {kind.value} endpoint"):
        choices.check(kind)


@pytest.mark.parametrize("kind", EndpointKind)
def test_nothing_chosen_is_always_possible(kind: EndpointKind) -> None:
    Choices().check(kind)
    Choices("none", "none").check(kind)


def test_candidates() -> None:
    far, dead = host("d", domain=ELSEWHERE), host("e", up=False)
    everybody = (WRITER, *READERS, far, dead, HostInfo(WRITER_ENDPOINT.host, 5432))
    assert candidates(A_WRITER, None, everybody) == [WRITER]
    assert candidates(A_READER, "us-east-1", everybody) == list(READERS)
    assert candidates(A_READER, None, everybody) == [*READERS, far]
    assert candidates(Aim(HostRole.UNKNOWN), "us-east-1", everybody) == [WRITER, *READERS]
    assert candidates(Aim(None, HostRole.WRITER), None, everybody) == []
    # There is only one writer: whether it is worth a try is the try's business.
    assert candidates(A_WRITER, None, (host("a", HostRole.WRITER, up=False),)) != []


def test_what_is_right() -> None:
    everybody = (WRITER, *READERS)
    assert is_right(A_WRITER, HostRole.WRITER, everybody)
    assert not is_right(A_WRITER, HostRole.READER, everybody)
    assert not is_right(A_WRITER, HostRole.UNKNOWN, everybody)
    assert is_right(A_READER, HostRole.READER, everybody)
    assert not is_right(A_READER, HostRole.WRITER, everybody)
    assert is_right(A_READER, HostRole.WRITER, (WRITER,)), "a cluster of one host"
    assert is_right(Aim(HostRole.READER), HostRole.WRITER, everybody)


def test_claims_are_ranked_where_somebody_else_is_known() -> None:
    views = [
        ClusterState("t", topology=Topology(writer="b:1", rank=2.0)),
        ClusterState("u", topology=Topology(writer=None, rank=9.0)),
    ]
    assert is_doubted("a:1", views)
    assert not is_doubted("b:1", views)
    assert not is_doubted("a:1", views[1:])
    assert is_outranked("a:1", 1.0, views)
    assert not is_outranked("a:1", 3.0, views), "the newest writer, of which the view does not know yet"
    assert not is_outranked("b:1", 1.0, views)


def opening(**failures: float) -> Opening:
    named = {(f"{name}.{DOMAIN}:5432" if name != "endpoint" else ENDPOINT): at for name, at in failures.items()}
    return Opening(A_READER, "us-east-1", deadline=110.0, interval=1.0, failures=named)


@pytest.mark.parametrize(
    ("attempts", "hosts", "now", "expected"),
    [
        (opening(b=99.5), READERS, 100.0, Attempt(READERS[1:])),
        (opening(b=99.5, c=99.6), READERS, 100.0, Attempt(())),
        (opening(b=99.5, c=99.6, endpoint=99.7), READERS, 100.0, Wait(100.5)),
        (opening(b=99.5, c=99.6, endpoint=99.7), (*READERS, host("d")), 100.0, Attempt((host("d"),))),
        (opening(b=99.5, c=99.6, endpoint=99.7), READERS, 100.55, Attempt(READERS[:1])),
        (opening(endpoint=109.5), (), 109.9, Wait(110.0)),
        (opening(b=99.5), READERS, 110.0, GiveUp()),
    ],
)
def test_next_step(attempts: Opening, hosts: tuple[HostInfo, ...], now: float, expected: object) -> None:
    assert next_step(attempts, hosts, now) == expected


def test_the_first_step_tries_something_in_any_case() -> None:
    assert first_step(A_READER, "us-east-1", READERS) == Attempt(READERS)
    assert first_step(A_READER, "us-east-1", ()) == Attempt(())


@given(
    known=st.lists(st.sampled_from([WRITER, *READERS, host("d"), host("e", up=False)]), unique=True),
    aim=st.sampled_from([A_WRITER, A_READER, Aim(HostRole.UNKNOWN), Aim(None, HostRole.WRITER)]),
    interval=st.floats(0.01, 5.0),
)
def test_no_cluster_is_run_against_in_a_loop(known: list[HostInfo], aim: Aim, interval: float) -> None:
    """Whatever fails at once: every place is tried once per interval, until the time is over."""
    now, attempts, tried = 0.0, Opening(aim, None, 10.0, interval), dict[str, int]()
    step: object = first_step(aim, None, known)
    while not isinstance(step, GiveUp):
        if isinstance(step, Wait):
            assert now < step.until <= 10.0
            now = step.until
        else:
            assert isinstance(step, Attempt)
            place = step.hosts[0].key if step.hosts else ENDPOINT
            tried[place] = tried.get(place, 0) + 1
            attempts = attempts.failed_at(place, now)
        step = next_step(attempts, known, now)
    assert set(tried) == {ENDPOINT, *(one.key for one in candidates(aim, None, known))}
    assert max(tried.values()) <= 10.0 / interval + 2
