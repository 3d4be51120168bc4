-- One row an event, typed, its moment in microseconds UTC; `problem` says why it cannot be used, null where it can.
-- An integer id reads back as it was written ('007' is text), or is a float's spelling of one ('17850.0'); where
-- integers are tried and an id is none, user_fits or item_fits is false: then all of them are text.
with parsed as (
    select
        *,
        if(
            $users_are_integers,
            cast_to_type(try_cast(user_id as bigint), $user_type),
            cast_to_type(user_id, $user_type)
        ) as user_key,
        if(
            $items_are_integers,
            cast_to_type(try_cast(item_id as bigint), $item_type),
            cast_to_type(item_id, $item_type)
        ) as item_key,
        try_cast(event_time as double) as tick,
        case
            when tick is null then epoch_us(try_cast(event_time as timestamptz))
            when $timestamp_unit = 's' or ($timestamp_unit = 'auto' and abs(tick) < 1e11)
                then try_cast(tick * 1000000 as bigint)
            when $timestamp_unit = 'ms' or ($timestamp_unit = 'auto' and abs(tick) < 1e14)
                then try_cast(tick * 1000 as bigint)
            else try_cast(tick as bigint)
        end as moment,
        try_cast(rating as double) as stars
    from records
)

select
    user_key as user_id,
    item_key as item_id,
    moment,
    $min_rating is not null and stars < $min_rating as below_min_rating,
    cast(
        case
            when event_time is not null and (moment is null or abs(moment) > 253402300799999999)
                then 'unreadable time'
            when user_key is null then 'no user'
            when item_key is null then 'no item'
            when event_time is null then 'no time'
            when $min_rating is not null and (stars is null or isnan(stars)) then 'no rating'
        end
        as enum('no user', 'no item', 'no time', 'unreadable time', 'no rating')
    ) as problem,
    if(
        cast(user_key as varchar) = user_id,
        true,
        coalesce(cast(user_key as varchar) || '.0' = user_id, user_id is null or lower(user_id) = 'nan')
    ) as user_fits,
    if(
        cast(item_key as varchar) = item_id,
        true,
        coalesce(cast(item_key as varchar) || '.0' = item_id, item_id is null or lower(item_id) = 'nan')
    ) as item_fits,
    user_id as raw_user,
    item_id as raw_item,
    event_time as raw_time,
    rating as raw_rating,
    file
from parsed
