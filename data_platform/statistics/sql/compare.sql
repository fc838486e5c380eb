-- How many rows had to be applied, how many of them differ.
SELECT count(*), count(*) FILTER (WHERE differs) FROM ({compared}) AS compared
