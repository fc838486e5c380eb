-- Of records with the same log.record.uid those that do not count are left out.
        AND (source_object, source_position) NOT IN (SELECT source_object, source_position FROM {losers})
