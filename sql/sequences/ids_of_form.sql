-- One row: an id that has a form, if at least half of the first ids of a column have it.
-- Reads loaded_events, any rows of it. Parameters: id, the column; form, a regular expression.
with ids as (
    select columns([$id]) as id
    from loaded_events
    limit 1000 -- noqa: AM09
)

select any_value(id) filter (where regexp_matches(id, $form)) as example
from ids
having 2 * count(*) filter (where regexp_matches(id, $form)) >= greatest(count(id), 1)
