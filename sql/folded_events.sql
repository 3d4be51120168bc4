-- One row a user and item of the histories: repeats folded into their last or first moment.
select
    user_id,
    item_id,
    if($repeats = 'first', min(moment), max(moment)) as moment
from history_events
group by user_id, item_id
