"""How the embedded Redshift executes UNLOAD: is_unload, parse_unload, execute_unload.

The PostgreSQL process and the protocol front are the package above; they meet this one in contract.py.
"""

from data_platform.local.warehouse.unload.contract import FAULT_KINDS
from data_platform.local.warehouse.unload.execution import execute_unload
from data_platform.local.warehouse.unload.parser import is_unload, parse_unload

__all__ = ["FAULT_KINDS", "execute_unload", "is_unload", "parse_unload"]
