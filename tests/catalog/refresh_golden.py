"""Write the reviewed DDL anew: python tests/catalog/refresh_golden.py; then read the difference."""

from test_catalog_shipped import GOLDEN, SHIPPED, all_ddl

from data_platform.catalog import load_catalog

for name, cluster in (("single.sql", None), ("cluster.sql", "main")):
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / name).write_text(all_ddl(load_catalog(SHIPPED), cluster))
