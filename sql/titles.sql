-- One row an item of a catalogue: the title that stands with it most often, the first in the alphabet among equals.
with counted as (
    select
        if($items_are_integers and ends_with(item_id, '.0'), item_id[:-3], item_id) as item_id,
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
