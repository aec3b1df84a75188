"""The flows and the command line: what happens in which order."""

import os

from nas_core.addresses import bypass_proxies

# Read by prefect when it is first imported. A busy machine needs longer than Prefect's 20 seconds
# to start the server that a flow without a server brings along, and nothing is to be sent out.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# The servers of this machine, for this process and those that it starts.
bypass_proxies(os.environ)
