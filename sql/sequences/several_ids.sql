-- One row: a text that holds several ids, if at least half of the first ids of a column do, as '[10, 20]' or '10|20'.
-- Reads loaded_events, any rows of it. Parameters: id, the column; several, a regular expression.
with ids as (
    select columns([$id]) as id
    from loaded_events
    limit 1000 -- noqa: AM09
)

select any_value(id) filter (where regexp_matches(id, $several)) as example
from ids
having 2 * count(*) filter (where regexp_matches(id, $several)) >= greatest(count(id), 1)
