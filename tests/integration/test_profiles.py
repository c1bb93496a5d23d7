"""Connections that choose a profile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.conftest import Connect
from wrapper.errors import AwsWrapperError
from wrapper.plugins.failover_v2 import FailoverV2PluginFactory
from wrapper.plugins.host_monitoring_v2 import HostMonitoringV2PluginFactory
from wrapper.profiles import ConfigurationProfile, DriverConfigurationProfiles


@pytest.fixture(autouse=True)
def no_profiles_left() -> Iterator[None]:
    yield
    DriverConfigurationProfiles.clear_profiles()


def test_a_connection_has_the_plugins_and_parameters_of_its_profile(connect: Connect) -> None:
    service = connect(profile_name="B").plugin_service
    assert service.manager.plugins == []
    assert (service.settings["connect_timeout"], service.settings["tcp_keepalive"]) == (10, True)


def test_what_is_given_for_the_connection_wins(connect: Connect) -> None:
    service = connect(profile_name="B", connection_timeout=4, plugins="connect_time").plugin_service
    assert [type(plugin).__name__ for plugin in service.manager.plugins] == ["ConnectTimePlugin"]
    assert (service.settings["connect_timeout"], service.settings["tcp_keepalive"]) == (4, True)


def test_factories_and_the_drivers_parameters_may_stand_in_a_profile(connect: Connect) -> None:
    parameters = {"application_name": "of the profile"}
    profile = ConfigurationProfile("mine", (HostMonitoringV2PluginFactory, FailoverV2PluginFactory), parameters)
    DriverConfigurationProfiles.add_or_replace_profile("mine", profile)
    connection = connect(profile_name="mine")
    assert [type(plugin).__name__ for plugin in connection.plugin_service.manager.plugins] == [
        "FailoverV2Plugin",
        "HostMonitoringV2Plugin",
    ]
    assert connection.execute("SELECT current_setting('application_name')").fetchone() == ("of the profile",)


def test_a_parameter_that_nobody_knows_is_refused_when_somebody_connects(connect: Connect) -> None:
    DriverConfigurationProfiles.add_or_replace_profile("mine", ConfigurationProfile("mine", parameters={"sslmoed": "disable"}))
    with pytest.raises(AwsWrapperError, match="sslmoed"):
        connect(profile_name="mine")


def test_an_unknown_profile_is_refused(connect: Connect) -> None:
    with pytest.raises(AwsWrapperError, match="profile_name='C7'"):
        connect(profile_name="C7")
