"""Athena of the embedded cloud: statements are executed for real, by DuckDB over the objects of the embedded S3.

The front speaks Athena's protocol, executions.py keeps its queries, statement.py runs one, tables.py finds the files of
a Glue table, translate.py turns Athena's SQL into DuckDB's. Workgroups and the rest of Athena's API stay moto's.
"""
