-- One row: the number of items in the histories.
-- Reads history_events.
select count(distinct item_id) as n_items
from history_events
where not left_out
