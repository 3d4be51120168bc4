-- One row per item and each of its best neighbours: the cosine of the two sets of users who have them, with $shrinkage
-- added to its denominator: it lowers the cosines of items with few users. Only the newest items of each user are
-- paired, so that a few long histories do not make up most of the pairs. Decimals have the same sum in any order; ties
-- are in the order of ids.
with recent as (
    select
        user_index,
        item_index
    from user_items
    where recency <= $items_per_user
),

counts as (
    select
        item_index,
        count(*) as n_users
    from recent
    group by item_index
),

pairs as (
    select
        one.item_index,
        other.item_index as neighbour,
        count(*) as n_users
    from recent as one
    inner join recent as other on one.user_index = other.user_index and one.item_index < other.item_index
    group by one.item_index, other.item_index
),

both_ways as (
    select
        item_index,
        neighbour,
        n_users
    from pairs
    union all
    select
        neighbour as item_index,
        item_index as neighbour,
        n_users
    from pairs
)

select
    both_ways.item_index,
    both_ways.neighbour,
    cast(
        both_ways.n_users / (sqrt(counts.n_users * neighbour_counts.n_users) + $shrinkage) as decimal(18, 12)
    ) as cosine
from both_ways
inner join counts on both_ways.item_index = counts.item_index
inner join counts as neighbour_counts on both_ways.neighbour = neighbour_counts.item_index
qualify row_number() over (
    partition by both_ways.item_index
    order by cosine desc, both_ways.neighbour asc
) <= $neighbours_per_item
