"""The cluster: how its hosts are found, judged available and chosen, and the Global Database."""

from __future__ import annotations

from wrapper.decisions.selection import HIGHEST_LOAD, LOWEST_LOAD
from wrapper.parameters.forms import A_DAY, REGION, REGION_PATTERN, STRATEGIES, WEIGHTS
from wrapper.parameters.setting import Form, Setting

EVERYWHERE = "the shared monitor has a session on every host"

SETTINGS = (
    Setting(
        "cluster_id",
        str,
        "1",
        "A name of yours for the cluster; only needed where two clusters would look alike.",
        plugin="topology",
    ),
    Setting(
        "cluster_instance_host_pattern",
        str,
        None,
        "Endpoint of the cluster's instances with '?' for the instance's name, optionally ':port'. Needed for IP addresses and "
        "custom domains.",
        plugin="topology",
    ),
    Setting(
        "topology_refresh_ms",
        int,
        30000,
        "How often the list of members is read.",
        unit="ms",
        plugin="topology",
        minimum=50,
        maximum=A_DAY,
    ),
    Setting(
        "cluster_topology_high_refresh_rate_ms",
        int,
        100,
        "How often it is read for a while after a failover.",
        unit="ms",
        plugin="topology",
        minimum=10,
        maximum=A_DAY,
    ),
    Setting(
        "monitoring_connection_priority",
        tuple,
        ("strict-writer",),
        "Where the reference's one topology connection should lead.",
        plugin="topology",
        choices=("strict-writer", "strict-reader", "writer-or-reader"),
        idle=EVERYWHERE,
    ),
    Setting(
        "default_host_availability_strategy",
        str,
        "",
        "How long a host that failed is left alone. Empty: until it has answered.",
        plugin="availability",
        choices=("", "exponential_backoff"),
    ),
    Setting(
        "host_availability_strategy_max_retries",
        int,
        5,
        "Failures in a row after which a host is no longer tried.",
        plugin="availability",
        minimum=1,
    ),
    Setting(
        "host_availability_strategy_initial_backoff_time",
        float,
        30.0,
        "Time before a host is tried again, doubled with every failure.",
        unit="s",
        plugin="availability",
        minimum=0.01,
    ),
    Setting(
        "reader_host_selector_strategy",
        str,
        "random",
        "How the splitting plugins choose a reader.",
        plugin="read_write_splitting, gdb_rw",
        aliases=("reader_response_strategy",),
        choices=STRATEGIES,
    ),
    Setting("round_robin_host_weight_pairs", str, "", "`host:weight,…` for round_robin.", plugin="selection", form=WEIGHTS),
    Setting("round_robin_default_weight", int, 1, "Weight of hosts not listed.", plugin="selection", minimum=1),
    Setting("weighted_random_host_weight_pairs", str, "", "`host:weight,…` for weighted_random.", plugin="selection", form=WEIGHTS),
    Setting("weighted_random_default_weight", int, 1, "Weight of hosts not listed.", plugin="selection", minimum=1),
    *(
        Setting(f"{name}_{figure}_weight", float, default, f"What {unit} counts for {name}.", plugin="selection", minimum=0)
        for name in (LOWEST_LOAD, HIGHEST_LOAD)
        for figure, default, unit in (("cpu", 1.0, "a percent of CPU"), ("lag", 100.0, "a millisecond of lag"))
    ),
    Setting(
        "global_cluster_instance_host_patterns",
        tuple,
        (),
        "For each region of a Global Database the endpoint of its instances, as in `cluster_instance_host_pattern`. Needed for "
        "Global Databases: instances in other regions are left alone.",
        plugin="global",
        form=Form(
            "region:pattern or region:pattern:port with '?' in the pattern", rf"{REGION_PATTERN}:[^\s:]*\?[^\s:]*(:\d{{1,5}})?"
        ),
    ),
    Setting(
        "gdb_monitoring_connection_priority",
        tuple,
        ("strict-writer-primary",),
        "The same with regions.",
        plugin="global",
        form=Form(
            "strict-writer-primary, strict-reader-primary, strict-reader-secondary, strict-writer-REGION, strict-reader-REGION "
            "or REGION",
            rf"strict[-_](writer[-_]primary|reader[-_](primary|secondary)|(writer|reader)[-_]{REGION_PATTERN})|{REGION_PATTERN}",
            lower=True,
        ),
        idle=EVERYWHERE,
    ),
    Setting(
        "gdb_accessible_regions",
        tuple,
        (),
        "The regions whose hosts may be probed and connected to. Default: all. The monitor probes what any of its clients may "
        "reach.",
        plugin="global",
        form=REGION,
    ),
)
