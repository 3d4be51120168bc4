-- At most one row: the most frequent id of a column that is one of some words, and its number of events.
-- Reads loaded_events. Parameters: id, the column, text; words, in lower case.
with ids as (
    select columns([$id]) as id
    from loaded_events
)

select
    id,
    count(*) as n_events
from ids
where list_contains(cast($words as varchar[]), lower(trim(id)))
group by id
order by n_events desc, id asc
limit 1
