"""All the learning: plain Python and torch, without Prefect, MLflow or DVC."""

import os

# Read by torch when it first allocates. On Linux, tensors of 2 MiB or more then lie in huge pages:
# the system clears the pages of each new tensor, and far fewer of them; a candidate trains faster.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
