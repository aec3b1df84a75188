import importlib
import pkgutil

from prefect import Flow

import flows
from flows.servers.orphans import FLOWS, claim


def test_every_flow_names_its_process_and_is_known() -> None:
    modules = [
        importlib.import_module(f"flows.{m.name}") for m in pkgutil.iter_modules(flows.__path__)
    ]
    found = [
        value for module in modules for value in vars(module).values() if isinstance(value, Flow)
    ]
    assert {flow.name for flow in found} == set(FLOWS)
    assert all(claim in flow.on_running_hooks for flow in found)
