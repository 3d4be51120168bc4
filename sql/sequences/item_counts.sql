-- One row per item of the histories: its number of events.
-- Reads history_events.
select
    item_id,
    count(*) as n_events
from history_events
where not left_out
group by item_id
