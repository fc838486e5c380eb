-- The parts of sessions as they will be: those of the cleared days are staged, with all that is to stay in their partitions.
(SELECT * FROM analytics_blocks.session_parts WHERE day NOT IN (SELECT day FROM cleared) UNION ALL SELECT * FROM {staged})
