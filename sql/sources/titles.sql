-- One row per item of a catalogue: the title it has most often, the first in the alphabet among equals.
with counted as (
    select
        item_id,
        title,
        count(*) as n_rows
    from catalogue
    where item_id is not null and title is not null
    group by all
)

select
    item_id,
    first(title order by n_rows desc, title asc) as title
from counted
group by item_id
order by item_id
