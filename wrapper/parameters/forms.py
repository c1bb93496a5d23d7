"""Forms and choices that parameters of several subjects share."""

from __future__ import annotations

from wrapper.decisions import selection
from wrapper.parameters.setting import Form

REGION_PATTERN = r"[a-z]{2,}(-[a-z]+)+-\d+"
REGION = Form("an AWS region such as eu-central-1", REGION_PATTERN, lower=True)
ARN = Form("an ARN (arn:…)", r"arn:[\w-]+:[\w-]+:\S+")
HOST = Form("a host name, without https:// and port", r"[^\s/:@]+")
HOST_AND_PORT = Form("host or host:port", r"(\[[0-9a-f:.]+\]|[^\s/:@,\[\]]+)(:\d{1,5})?")
URL = Form("a URL (https://…)", r"https?://\S+")
WEIGHTS = Form(
    "host:weight, more of them after commas, each weight a whole number of at least 1",
    r"(\s*[^\s,]+\s*:\s*0*[1-9]\d*\s*(,\s*|$))*",
)

# The longest that the monitor may be asked to wait before it looks again, in ms.
A_DAY = 86_400_000

STRATEGIES = (*selection.STRATEGIES, "fastest_response")
