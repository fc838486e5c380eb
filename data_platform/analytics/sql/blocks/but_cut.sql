-- Those that are put together of several parts are left out.
    AND hash NOT IN (SELECT hash FROM {cut})
