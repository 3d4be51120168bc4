-- One row per user and item of the histories, and one per user and item that is left out: repeats are folded into the
-- first or last, with the greatest weight. Any event that counts as seen makes it count.
-- Reads history_events. Parameters: repeats, 'first' or 'last'.
select
    user_id,
    item_id,
    if($repeats = 'first', min(moment), max(moment)) as moment,
    left_out,
    max(weight) as weight,
    bool_or(is_seen) as is_seen,
    bool_or(is_disliked) as is_disliked
from history_events
group by user_id, item_id, left_out
