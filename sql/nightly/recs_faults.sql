-- One row: the number of violations of each part of the contract in the recommendations at $recs, checked against the
-- view blocked_items. Lists are rebuilt from the rows, so the check does not rely on the scorer. Ids are compared as
-- the scorer compares them: without surrounding blanks.
with rows_of_recs as (
    select
        trim(cast(user_id as varchar), $blanks) as user_id,
        trim(cast(item_id as varchar), $blanks) as item_id,
        rank,
        score
    from read_parquet($recs, hive_partitioning = false)
),

lists as (
    select
        user_id,
        list(item_id) as item_ids,
        list(rank) as ranks,
        count(*) as n_rows,
        count(*) filter (where user_id is null or item_id is null or rank is null or score is null) as n_nulls,
        count(*) filter (where not isfinite(score)) as n_not_finite
    from rows_of_recs
    group by user_id
)

select
    coalesce(sum(lists.n_nulls), 0) as nulls,
    coalesce(sum(lists.n_not_finite), 0) as scores_that_are_not_finite,
    coalesce(sum(lists.n_rows - len(list_distinct(lists.item_ids))), 0) as duplicates,
    count(*) filter (where list_sort(lists.ranks) != range(1, lists.n_rows + 1)) as users_with_gaps_in_ranks,
    coalesce(sum(len(list_intersect(lists.item_ids, blocked_items.item_ids))), 0) as seen_items
from lists
left join blocked_items on lists.user_id = blocked_items.user_id
