-- One row a user and item of the histories, and one a user and item that is left out: repeats folded into their last or
-- first moment.
select
    user_id,
    item_id,
    if($repeats = 'first', min(moment), max(moment)) as moment,
    left_out
from history_events
group by user_id, item_id, left_out
