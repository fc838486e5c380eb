-- Functions that Redshift has and PostgreSQL has not. They live in pg_catalog, so that no search_path hides them.
CREATE OR REPLACE FUNCTION pg_catalog.getdate() RETURNS timestamp
LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT date_trunc($q$second$q$, now() AT TIME ZONE $q$UTC$q$) $$;
