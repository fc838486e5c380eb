"""How the embedded Redshift executes UNLOAD: is_unload, parse_unload, execute_unload.

The PostgreSQL process and the protocol front are the package above; they meet this one in contract.py.

Where it differs from Redshift, or the manual leaves it open:
- with PARTITION BY one slice writes each folder, not every slice in every folder;
- an expression's numeric without precision (avg, division) is decimal(38, 10) in Parquet and in the manifest;
- ADDQUOTES quotes nulls too, so that without NULL AS a null reads like an empty string;
- JSON booleans are the strings "t" and "f"; NaN and Infinity are strings;
- timestamps outside the years 1 to 9999, and infinity, are refused in Parquet (22023);
- slices are cut from the result in its order, so small results are spread over files evenly.
"""

from data_platform.local.warehouse.unload.contract import FAULT_KINDS
from data_platform.local.warehouse.unload.execution import execute_unload
from data_platform.local.warehouse.unload.parser import is_unload, parse_unload

__all__ = ["FAULT_KINDS", "execute_unload", "is_unload", "parse_unload"]
