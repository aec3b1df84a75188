"""The command line."""

import os

# So says a terminal that knows no size, and no column would be shown.
if os.environ.get("COLUMNS") == "0":
    del os.environ["COLUMNS"]
