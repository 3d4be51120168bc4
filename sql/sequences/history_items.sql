-- One row: how many items the histories hold.
select count(distinct item_id) as n_items
from history_events
where not left_out
