"""How the embedded Redshift executes UNLOAD: is_unload, parse_unload (parser.py), execute_unload (execution.py).

The PostgreSQL process and the protocol front are the package above; they meet this one in contract.py only.
"""
