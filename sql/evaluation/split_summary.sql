-- One row: the sizes of the training part and of the test; test items that nobody has in the training part are unknown.
with training as (
    select
        count(distinct user_index) as n_users,
        count(*) as n_events
    from training_events
),

items as (
    select count(*) as n_items
    from training_items
),

test as (
    select
        count(*) as n_items,
        count(*) - count(training_items.item_id) as n_unknown
    from test_items
    left join training_items on test_items.item_id = training_items.item_id
)

select
    training.n_users as training_users,
    items.n_items as training_items,
    training.n_events as training_events,
    test.n_items as test_items,
    test.n_unknown as unknown_test_items
from training
cross join items
cross join test
