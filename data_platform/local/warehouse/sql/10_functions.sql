-- Functions Redshift has and PostgreSQL has not, or answers differently. They live in pg_catalog, as Redshift's own do,
-- so that no search_path hides them. Dates follow Redshift: DATEADD keeps the last day of a month, DATEDIFF counts the
-- boundaries that are crossed. Bodies of plpgsql are read with the session's settings, where a backslash escapes: none
-- of them contains one.

CREATE OR REPLACE FUNCTION pg_catalog.version() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
    RETURN 'PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC gcc (GCC) 3.4.2 20041017 (Red Hat 3.4.2-6.fc3), '
           'Redshift 1.0.117891';

CREATE OR REPLACE FUNCTION pg_catalog.getdate() RETURNS timestamp LANGUAGE sql STABLE PARALLEL SAFE
    RETURN date_trunc('second', statement_timestamp() AT TIME ZONE 'UTC');

CREATE OR REPLACE FUNCTION pg_catalog.sysdate() RETURNS timestamp LANGUAGE sql STABLE PARALLEL SAFE
    RETURN transaction_timestamp() AT TIME ZONE 'UTC';

-- Date parts: Redshift's spellings -> PostgreSQL's.
CREATE OR REPLACE FUNCTION pg_catalog.redshift_date_part(part text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE lower(part)
        WHEN 'mil' THEN 'millennium' WHEN 'mils' THEN 'millennium' WHEN 'millenniums' THEN 'millennium'
        WHEN 'c' THEN 'century' WHEN 'cent' THEN 'century' WHEN 'cents' THEN 'century' WHEN 'centuries' THEN 'century'
        WHEN 'dec' THEN 'decade' WHEN 'decs' THEN 'decade' WHEN 'decades' THEN 'decade'
        WHEN 'y' THEN 'year' WHEN 'yr' THEN 'year' WHEN 'yrs' THEN 'year' WHEN 'years' THEN 'year'
        WHEN 'qtr' THEN 'quarter' WHEN 'qtrs' THEN 'quarter' WHEN 'quarters' THEN 'quarter'
        WHEN 'mon' THEN 'month' WHEN 'mons' THEN 'month' WHEN 'months' THEN 'month'
        WHEN 'w' THEN 'week' WHEN 'weeks' THEN 'week'
        WHEN 'd' THEN 'day' WHEN 'days' THEN 'day'
        WHEN 'h' THEN 'hour' WHEN 'hr' THEN 'hour' WHEN 'hrs' THEN 'hour' WHEN 'hours' THEN 'hour'
        WHEN 'm' THEN 'minute' WHEN 'min' THEN 'minute' WHEN 'mins' THEN 'minute' WHEN 'minutes' THEN 'minute'
        WHEN 's' THEN 'second' WHEN 'sec' THEN 'second' WHEN 'secs' THEN 'second' WHEN 'seconds' THEN 'second'
        WHEN 'ms' THEN 'millisecond' WHEN 'msec' THEN 'millisecond' WHEN 'msecs' THEN 'millisecond'
        WHEN 'msecond' THEN 'millisecond' WHEN 'mseconds' THEN 'millisecond' WHEN 'milliseconds' THEN 'millisecond'
        WHEN 'us' THEN 'microsecond' WHEN 'usec' THEN 'microsecond' WHEN 'usecs' THEN 'microsecond'
        WHEN 'microsecs' THEN 'microsecond' WHEN 'microseconds' THEN 'microsecond'
        WHEN 'dayofweek' THEN 'dow' WHEN 'dw' THEN 'dow' WHEN 'weekday' THEN 'dow'
        WHEN 'dayofyear' THEN 'doy' WHEN 'dy' THEN 'doy' WHEN 'yearday' THEN 'doy'
        ELSE lower(part) END;

CREATE OR REPLACE FUNCTION pg_catalog.dateadd(part text, amount bigint, value timestamp) RETURNS timestamp
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    unit text := pg_catalog.redshift_date_part(part);
    months bigint := CASE unit WHEN 'month' THEN 1 WHEN 'quarter' THEN 3 WHEN 'year' THEN 12 WHEN 'decade' THEN 120
                               WHEN 'century' THEN 1200 WHEN 'millennium' THEN 12000 END;
    result timestamp;
BEGIN
    IF months IS NULL THEN
        RETURN CASE unit
            WHEN 'microsecond' THEN value + amount * interval '1 microsecond'
            WHEN 'millisecond' THEN value + amount * interval '1 millisecond'
            WHEN 'second' THEN value + amount * interval '1 second'
            WHEN 'minute' THEN value + amount * interval '1 minute'
            WHEN 'hour' THEN value + amount * interval '1 hour'
            WHEN 'week' THEN value + amount * interval '7 days'
            ELSE value + amount * ('1 ' || unit)::interval END;
    END IF;
    result := value + amount * months * interval '1 month';
    -- The last day of a month stays the last day of a month: 30 April plus one month is 31 May.
    IF extract(day FROM value + interval '1 day') = 1 THEN
        result := date_trunc('month', result) + interval '1 month' - interval '1 day' + (value - date_trunc('day', value));
    END IF;
    RETURN result;
END $$;

CREATE OR REPLACE FUNCTION pg_catalog.dateadd(part text, amount bigint, value date) RETURNS timestamp
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN pg_catalog.dateadd(part, amount, value::timestamp);

CREATE OR REPLACE FUNCTION pg_catalog.dateadd(part text, amount bigint, value timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE STRICT PARALLEL SAFE
    RETURN pg_catalog.dateadd(part, amount, value AT TIME ZONE current_setting('timezone'))
           AT TIME ZONE current_setting('timezone');

CREATE OR REPLACE FUNCTION pg_catalog.datediff(part text, starts timestamp, ends timestamp) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    unit text := pg_catalog.redshift_date_part(part);
    year_length integer := CASE unit WHEN 'year' THEN 1 WHEN 'decade' THEN 10 WHEN 'century' THEN 100
                                     WHEN 'millennium' THEN 1000 END;
BEGIN
    IF year_length IS NOT NULL THEN
        RETURN CASE WHEN year_length < 100
            THEN div(extract(year FROM ends), year_length) - div(extract(year FROM starts), year_length)
            ELSE div(extract(year FROM ends) - 1, year_length) - div(extract(year FROM starts) - 1, year_length) END;
    END IF;
    RETURN CASE unit
        WHEN 'quarter' THEN (extract(year FROM ends) - extract(year FROM starts)) * 4
                            + extract(quarter FROM ends) - extract(quarter FROM starts)
        WHEN 'month' THEN (extract(year FROM ends) - extract(year FROM starts)) * 12
                          + extract(month FROM ends) - extract(month FROM starts)
        -- Redshift's week begins on Sunday: 2000-01-02 was one.
        WHEN 'week' THEN floor((ends::date - date '2000-01-02') / 7.0) - floor((starts::date - date '2000-01-02') / 7.0)
        WHEN 'day' THEN ends::date - starts::date
        WHEN 'hour' THEN extract(epoch FROM date_trunc('hour', ends) - date_trunc('hour', starts)) / 3600
        WHEN 'minute' THEN extract(epoch FROM date_trunc('minute', ends) - date_trunc('minute', starts)) / 60
        WHEN 'second' THEN extract(epoch FROM date_trunc('second', ends) - date_trunc('second', starts))
        WHEN 'millisecond' THEN extract(epoch FROM date_trunc('milliseconds', ends)
                                                   - date_trunc('milliseconds', starts)) * 1000
        WHEN 'microsecond' THEN extract(epoch FROM ends - starts) * 1000000
        ELSE date_part(unit, ends) - date_part(unit, starts) END;
END $$;

CREATE OR REPLACE FUNCTION pg_catalog.datediff(part text, starts date, ends date) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN pg_catalog.datediff(part, starts::timestamp, ends::timestamp);

CREATE OR REPLACE FUNCTION pg_catalog.datediff(part text, starts timestamptz, ends timestamptz) RETURNS bigint
LANGUAGE sql STABLE STRICT PARALLEL SAFE
    RETURN pg_catalog.datediff(part, starts AT TIME ZONE 'UTC', ends AT TIME ZONE 'UTC');

CREATE OR REPLACE FUNCTION pg_catalog.date_trunc(part text, value date) RETURNS timestamp
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN date_trunc(part, value::timestamp);

CREATE OR REPLACE FUNCTION pg_catalog.trunc(value timestamp) RETURNS date
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN value::date;

CREATE OR REPLACE FUNCTION pg_catalog.last_day(value timestamp) RETURNS date
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (date_trunc('month', value) + interval '1 month' - interval '1 day')::date;

CREATE OR REPLACE FUNCTION pg_catalog.last_day(value date) RETURNS date
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN pg_catalog.last_day(value::timestamp);

CREATE OR REPLACE FUNCTION pg_catalog.add_months(value timestamp, months bigint) RETURNS timestamp
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN pg_catalog.dateadd('month', months, value);

CREATE OR REPLACE FUNCTION pg_catalog.add_months(value date, months bigint) RETURNS timestamp
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN pg_catalog.dateadd('month', months, value::timestamp);

CREATE OR REPLACE FUNCTION pg_catalog.date_part_year(value date) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN extract(year FROM value)::integer;

CREATE OR REPLACE FUNCTION pg_catalog.convert_timezone(source text, target text, value timestamp) RETURNS timestamp
LANGUAGE sql STABLE STRICT PARALLEL SAFE RETURN value AT TIME ZONE source AT TIME ZONE target;

CREATE OR REPLACE FUNCTION pg_catalog.convert_timezone(target text, value timestamp) RETURNS timestamp
LANGUAGE sql STABLE STRICT PARALLEL SAFE RETURN value AT TIME ZONE 'UTC' AT TIME ZONE target;

CREATE OR REPLACE FUNCTION pg_catalog.convert_timezone(target text, value timestamptz) RETURNS timestamp
LANGUAGE sql STABLE STRICT PARALLEL SAFE RETURN value AT TIME ZONE target;

-- Text
CREATE OR REPLACE FUNCTION pg_catalog.len(value text) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN char_length(value);

CREATE OR REPLACE FUNCTION pg_catalog.charindex(wanted text, value text) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN strpos(value, wanted);

CREATE OR REPLACE FUNCTION pg_catalog.replicate(value text, times integer) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN repeat(value, times);

CREATE OR REPLACE FUNCTION pg_catalog.sha2(value text, bits integer) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN encode(CASE bits WHEN 0 THEN sha256(convert_to(value, 'UTF8')) WHEN 224 THEN sha224(convert_to(value, 'UTF8'))
                            WHEN 256 THEN sha256(convert_to(value, 'UTF8')) WHEN 384 THEN sha384(convert_to(value, 'UTF8'))
                            WHEN 512 THEN sha512(convert_to(value, 'UTF8')) END, 'hex');

CREATE OR REPLACE FUNCTION pg_catalog.strtol(digits text, base integer) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    negative boolean := left(ltrim(digits), 1) = '-';
    clean text := regexp_replace(ltrim(lower(digits), ' +-'), CASE base WHEN 16 THEN '^0x' ELSE '^$' END, '');
    result bigint := 0;
    digit integer;
    letter text;
BEGIN
    FOREACH letter IN ARRAY string_to_array(clean, NULL) LOOP
        digit := strpos('0123456789abcdefghijklmnopqrstuvwxyz', letter) - 1;
        IF digit < 0 OR digit >= base THEN
            RAISE EXCEPTION 'The input % is not valid to be converted to base %', digits, base
                USING ERRCODE = 'invalid_text_representation';
        END IF;
        result := result * base + digit;
    END LOOP;
    RETURN CASE WHEN negative THEN -result ELSE result END;
END $$;

-- JSON in VARCHAR, and SUPER (kept as jsonb)
CREATE OR REPLACE FUNCTION pg_catalog.json_extract_path_text(document text, VARIADIC path text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN json_extract_path_text(document::json, VARIADIC path);

CREATE OR REPLACE FUNCTION pg_catalog.json_extract_array_element_text(document text, index integer) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN document::json ->> index;

CREATE OR REPLACE FUNCTION pg_catalog.json_array_length(document text) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN json_array_length(document::json);

CREATE OR REPLACE FUNCTION pg_catalog.is_valid_json(document text) RETURNS boolean
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN document IS JSON OBJECT;

CREATE OR REPLACE FUNCTION pg_catalog.json_parse(document text) RETURNS jsonb
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN document::jsonb;

CREATE OR REPLACE FUNCTION pg_catalog.json_serialize(document jsonb) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN document::text;

-- Aggregates
CREATE OR REPLACE FUNCTION pg_catalog.redshift_median(numbers float8[]) RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY number) FROM unnest(numbers) AS number
$$;

CREATE OR REPLACE AGGREGATE pg_catalog.median(float8)
    (SFUNC = array_append, STYPE = float8[], FINALFUNC = pg_catalog.redshift_median);

CREATE OR REPLACE FUNCTION pg_catalog.redshift_listagg(state text, value anyelement, delimiter text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT CASE WHEN value IS NULL THEN state WHEN state IS NULL THEN value::text
             ELSE state || coalesce(delimiter, '') || value::text END $$;

CREATE OR REPLACE AGGREGATE pg_catalog.listagg(anyelement, text) (SFUNC = pg_catalog.redshift_listagg, STYPE = text);

CREATE OR REPLACE FUNCTION pg_catalog.redshift_listagg(state text, value anyelement) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT pg_catalog.redshift_listagg(state, value, '') $$;

CREATE OR REPLACE AGGREGATE pg_catalog.listagg(anyelement) (SFUNC = pg_catalog.redshift_listagg, STYPE = text);
