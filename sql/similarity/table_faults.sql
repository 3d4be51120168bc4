-- One row: the number of violations of each part of the contract in the table of similar items at $similar. Ids are
-- compared as everywhere: without surrounding blanks.
with table_rows as (
    select
        trim(cast(item_id as varchar), $blanks) as item_id,
        trim(cast(similar_item_id as varchar), $blanks) as similar_item_id,
        rank,
        score
    from read_parquet($similar, hive_partitioning = false)
),

lists as (
    select
        item_id,
        list(similar_item_id) as similar_items,
        list(rank) as ranks,
        count(*) as n_rows,
        count(*) filter (
            where item_id is null or similar_item_id is null or rank is null or score is null
        ) as n_nulls,
        count(*) filter (where not isfinite(score)) as n_not_finite,
        count(*) filter (where similar_item_id = item_id) as n_of_itself
    from table_rows
    group by item_id
)

select
    coalesce(sum(n_nulls), 0) as nulls,
    coalesce(sum(n_not_finite), 0) as scores_that_are_not_finite,
    coalesce(sum(n_rows - len(list_distinct(similar_items))), 0) as duplicates,
    count(*) filter (where list_sort(ranks) != range(1, n_rows + 1)) as items_with_gaps_in_ranks,
    coalesce(sum(n_of_itself), 0) as items_similar_to_themselves
from lists
