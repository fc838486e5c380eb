-- Sessions that started on the days to build, put together from their parts on whatever days. Parts of different
-- days have no event at the same time, so there the time alone tells whether an add-to-cart follows a view. `parts`:
-- id_parts or gap_parts.
SELECT service, day, events, duration_ns, viewed, carted, users
FROM
(
    SELECT
        service,
        argMin(part.day, part.started) AS day,
        sum(part.events) AS events,
        toUnixTimestamp64Nano(max(part.ended)) - toUnixTimestamp64Nano(min(part.started)) AS duration_ns,
        max(part.viewed) AS viewed,
        max(part.carted)
            OR (max(part.viewed) AND max(part.carts)
                AND minIf(part.first_view, part.viewed) < maxIf(part.last_cart, part.carts)) AS carted,
        groupArrayArray(part.users) AS users
    FROM
    (
{parts}
    ) AS part
    GROUP BY service, kind, key, piece
)
WHERE (service, day) IN (SELECT service, day FROM targets)
