-- One row an event of a history: repeats of an item folded into their last or first moment, or all kept.
select
    user_id,
    item_id,
    if($repeats = 'first', min(moment), max(moment)) as moment
from loaded_events
where problem is null and not below_min_rating
group by user_id, item_id, if($repeats = 'all', rowid, null)
