-- At most one row: an id that has a form, if at least a share of the first ids of a column have it.
-- Reads loaded_events, any rows of it. Parameters: id, the column; form, a regular expression; share, 0.0 to 1.0.
with ids as (
    select columns([$id]) as id
    from loaded_events
    limit 1000 -- noqa: AM09
)

select any_value(id) filter (where regexp_matches(id, $form)) as example
from ids
having count(*) filter (where regexp_matches(id, $form)) >= greatest($share * count(id), 1)
