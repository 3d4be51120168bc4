-- One row per user and item of the histories, and one per user and item that is left out: repeats are folded into the
-- first or last.
-- Reads history_events. Parameters: repeats, 'first' or 'last'.
select
    user_id,
    item_id,
    if($repeats = 'first', min(moment), max(moment)) as moment,
    left_out
from history_events
group by user_id, item_id, left_out
