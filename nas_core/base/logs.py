"""Where messages go."""

import logging
from typing import Any

# Prefect's of a run is an adapter.
Logger = logging.Logger | logging.LoggerAdapter[Any]
