-- One row per item of a catalogue: the value it has most often, the alphabetically first among equals.
-- Reads catalogue (item_id, value), one row per row of the catalogue's files.
with counted as (
    select
        item_id,
        value,
        count(*) as n_rows
    from catalogue
    where item_id is not null and value is not null
    group by all
)

select
    item_id,
    first(value order by n_rows desc, value asc) as value
from counted
group by item_id
order by item_id
