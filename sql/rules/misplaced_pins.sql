-- One row: how many pins of users, in the view judged_pins, are not where they belong in the recommendations, in the
-- view ruled_recs, and the first one's user, the rank where it was expected or else is, and item. A pin belongs into
-- the list of each user who may have it and has not seen it, in the view seen_pins (or if $keep_seen), as far as its
-- category has room for $most; at its position, or above where too few others are left to fill the list so far.
with open_pins as (
    select
        judged_pins.user_id,
        judged_pins.item_id,
        judged_pins.position,
        categories.category,
        row_number() over (
            partition by judged_pins.user_id, categories.category order by judged_pins.position
        ) as place
    from judged_pins
    left join categories on judged_pins.item_id = categories.item_id
    left join seen_pins on judged_pins.user_id = seen_pins.user_id and judged_pins.item_id = seen_pins.item_id
    where
        judged_pins.is_allowed
        and not judged_pins.is_blocked
        and not judged_pins.is_blocked_for_user
        and judged_pins.is_candidate
        and ($keep_seen or seen_pins.item_id is null)
),

standing as (
    select
        user_id,
        item_id,
        position,
        row_number() over (partition by user_id order by position) as number,
        count(*) over (partition by user_id) as n_pins
    from open_pins
    where category is null or place <= $most
),

lists as (
    select
        user_id,
        count(*) as n_rows
    from ruled_recs
    group by user_id
),

expected as (
    select
        standing.user_id,
        standing.item_id,
        least(standing.position, standing.number + greatest(0, coalesce(lists.n_rows, 0) - standing.n_pins)) as rank
    from standing
    left join lists on standing.user_id = lists.user_id
),

found as (
    select
        user_id,
        item_id,
        rank,
        source = 'pinned' as is_pinned
    from ruled_recs
    where source = 'pinned' or item_id in (select pins.item_id from pins)
)

select
    count(*) as n_rows,
    min(
        row(
            coalesce(expected.user_id, found.user_id),
            coalesce(expected.rank, found.rank),
            coalesce(expected.item_id, found.item_id)
        )
    ) as example
from expected
full join found
    on expected.user_id = found.user_id and expected.item_id = found.item_id and expected.rank = found.rank
where expected.user_id is null or found.user_id is null or not found.is_pinned
