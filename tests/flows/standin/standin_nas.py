"""The command nas, with the stand-in flow in place of the search."""

from flows import cli, serving

serving.MODULE = "standin_served"
cli.main()
