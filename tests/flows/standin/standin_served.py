"""What nas up starts in the tests, in place of flows.servers.deployments."""

import sys

from flows.servers import deployments

deployments.FLOWS = {"nas-search": "standin_flow.standin"}
if "slow" in sys.argv:
    sys.exit("params.yaml: the reason")
if __name__ == "__main__":
    deployments.main()
