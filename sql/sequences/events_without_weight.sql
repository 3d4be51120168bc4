-- One row: how many events above --min-rating are left out because the user dislikes the item, or their weight is 0.
-- Reads weighed_events.
select
    count(*) filter (where is_disliked) as disliked,
    count(*) filter (where not is_disliked) as of_weight_0
from weighed_events
where left_out and not below_min_rating
