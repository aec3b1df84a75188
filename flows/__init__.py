"""The flows and the command line: what happens in which order."""

import os

from nas_core.base.addresses import bypass_proxies

# Read by prefect when it is first imported. The server that a flow without a server would bring
# along lets any web page in: see `flows.servers.prefect_server.for_command`. And nothing is to be
# sent out.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# Read by matplotlib when it is first imported. Commands draw into files alone, and what a notebook
# set for itself need not be there.
os.environ["MPLBACKEND"] = "agg"
# The servers of this machine, for this process and those that it starts.
bypass_proxies(os.environ)
