-- One row: the number of distinct items in the recommendations at $path and their mean rank by popularity (null without
-- recommendations), both without the items that nobody has in the training part, and the number of users with a full
-- list.
select
    count(distinct training_items.item_id) as n_items,
    avg(training_items.popularity) as mean_popularity_rank,
    count(*) filter (where recs.rank = $k) as users_with_full_list
from read_parquet($path, hive_partitioning = false) as recs
left join training_items on recs.item_id = training_items.item_id
