-- One row per user and distinct item of the training part, with its place among the user's items, from 1, newest first.
select
    training_events.user_index,
    training_items.item_index,
    row_number() over (
        partition by training_events.user_index
        order by max(training_events.place) desc
    ) as recency
from training_events
inner join training_items on training_events.item_id = training_items.item_id
group by training_events.user_index, training_items.item_index
