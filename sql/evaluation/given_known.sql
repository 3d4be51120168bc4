-- One row: the number of tested users and of items of the log that the view given_recs has, one of its rows, a tested
-- user and an item of the log. Ids are compared by their trimmed text.
with log_items as (
    select item_id from training_items
    union
    select item_id from test_items
)

select
    (
        select count(*)
        from tested_users
        semi join given_recs on trim(cast(tested_users.user_id as varchar), $blanks) = given_recs.user_id
    ) as n_users,
    (
        select count(*)
        from log_items
        semi join given_recs on trim(cast(log_items.item_id as varchar), $blanks) = cast(given_recs.item_id as varchar)
    ) as n_items,
    (select min(user_id) from given_recs) as given_user,
    (select min(item_id) from given_recs) as given_item,
    (select min(user_id) from tested_users) as tested_user,
    (select min(item_id) from training_items) as log_item
