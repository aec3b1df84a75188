"""The command nas, with the stand-in flow in place of the search."""

from flows.cli import main as cli
from flows.servers import deployments, serving

serving.MODULE = "standin_served"
deployments.FLOWS = {"nas-search": "standin_flow.standin"}
cli.main()
