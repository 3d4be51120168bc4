-- One row: the number of pins of users, in the view judged_pins, that are not at their place in the recommendations,
-- in the view ruled_recs; and the first one's user, rank (expected, or else its own) and item. A pin belongs in the
-- list of each user who may get it, unless it is the user's in the view seen_pins, if the list has room for it among
-- the $maximum items of its category: at its position, or above it if there are too few other items to fill the list up
-- to there.
with numbered_pins as (
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
        and seen_pins.item_id is null
),

open_pins as (
    select
        user_id,
        item_id,
        position,
        row_number() over (partition by user_id order by position) as number,
        count(*) over (partition by user_id) as n_pins
    from numbered_pins
    where category is null or place <= $maximum
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
        open_pins.user_id,
        open_pins.item_id,
        least(open_pins.position, open_pins.number + greatest(0, coalesce(lists.n_rows, 0) - open_pins.n_pins)) as rank
    from open_pins
    left join lists on open_pins.user_id = lists.user_id
),

placed as (
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
            coalesce(expected.user_id, placed.user_id),
            coalesce(expected.rank, placed.rank),
            coalesce(expected.item_id, placed.item_id)
        )
    ) as example
from expected
full join placed
    on expected.user_id = placed.user_id and expected.item_id = placed.item_id and expected.rank = placed.rank
where expected.user_id is null or placed.user_id is null or not placed.is_pinned
