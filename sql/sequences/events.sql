-- One row per event, typed, its moment in microseconds UTC; `problem` says why the event cannot be used, or is null.
-- If ids are read as integers, user_fits and item_fits are false for an id that is not one; then all ids become text.
-- If ids are text, both are false for an id with blanks around it; then ids are compared without blanks.
-- A line end within an id means that a stray quote has merged two records.
-- time_kind: 0 text; numbers by size: 1 s, 2 ms, 3 us, 4 ns, 5 too small to recognise, 6 zero; null if unreadable. 8 is
-- added for numbers like 1.7E+09, as spreadsheets show and save them, which have lost the second.
-- Reads records. Parameters: users_are_integers, items_are_integers; user_type, item_type, a value of the type of the
-- ids; users_must_be_integers, items_must_be_integers; null_words, whole_number, lost_digits, regular expressions of
-- ids; has_null_words, whether the user added null words; has_quotes, whether fields may be quoted; blanks, characters
-- to trim; timestamp_format, or null; timestamp_unit; since, in microseconds UTC, or null; min_rating, or null; types
-- of events, or null, with their type_weights and are_seen; value_weight, linear, log or steps, or null; steps, values
-- in ascending order, with their step_weights.
with parsed as (
    select
        *,
        if(
            ($has_null_words or not $users_are_integers) and regexp_matches(user_id, $null_words),
            null,
            if(
                $users_are_integers,
                cast_to_type(
                    coalesce(try_cast(user_id as bigint), try_cast(trim(user_id, $blanks) as bigint)), $user_type
                ),
                cast_to_type(user_id, $user_type)
            )
        ) as user_key,
        if(
            ($has_null_words or not $items_are_integers) and regexp_matches(item_id, $null_words),
            null,
            if(
                $items_are_integers,
                cast_to_type(
                    coalesce(try_cast(item_id as bigint), try_cast(trim(item_id, $blanks) as bigint)), $item_type
                ),
                cast_to_type(item_id, $item_type)
            )
        ) as item_key,
        if(
            $timestamp_format is null,
            coalesce(
                -- DuckDB would skip the underscores of 2023_12_15.
                if(contains(event_time, '_'), null, try_cast(event_time as double)),
                if(
                    contains(event_time, ',') and regexp_matches(event_time, '^\s*\d{5,},\d+\s*$'),
                    try_cast(replace(event_time, ',', '.') as double),
                    null
                )
            ),
            null
        ) as tick,
        case
            when $timestamp_format is not null
                then epoch_us(
                    cast(
                        coalesce(
                            if(
                                -- DuckDB takes each of these for the zone of one country.
                                $timestamp_format like '%\%Z%' escape '\'
                                and regexp_matches(event_time, '\b(AST|BST|CST|GST|IST|SST)\b'),
                                null,
                                try_strptime(event_time, $timestamp_format)
                            ),
                            -- A number from a column of floats or decimals, such as 20231215.0.
                            try_strptime(regexp_extract(event_time, '^(\d+)\.0*$', 1), $timestamp_format),
                            if(
                                regexp_matches(event_time, '^\d+\.\d+$') and $timestamp_format like '%\%S' escape '\',
                                try_strptime(event_time, concat($timestamp_format, '.%f')),
                                null
                            )
                        ) as timestamptz
                    )
                )
            -- Letters at the end name a zone. Three letters are ambiguous, except for UTC.
            when
                tick is null
                and ascii(right(event_time, 2)) > 57
                and not regexp_matches(event_time, '\d ?(UTC|GMT)$|[Z\d]\[UTC\]$|[A-Za-z]/[A-Za-z]')
                then null
            -- No place is 15 hours from UTC, but such an offset would be added.
            when tick is null and regexp_matches(event_time, ':\d\d([.,]\d+)?\s*[+-](1[5-9]|[2-9]\d)') then null
            when tick is null
                then epoch_us(
                    coalesce(
                        try_cast(event_time as timestamptz),
                        try_cast(
                            -- Blanks before an offset, a comma before a fraction, ISO 8601's basic form, and hours
                            -- without minutes.
                            regexp_replace(
                                regexp_replace(
                                    regexp_replace(
                                        regexp_replace(
                                            regexp_replace(
                                                -- Java adds a region in brackets to the offset.
                                                regexp_replace(
                                                    trim(event_time, $blanks),
                                                    '(?i)(Z|[+-]\d\d:?\d\d)\[[\w/+-]+\]$',
                                                    '\1'
                                                ),
                                                '(?i)\s*Z$',
                                                'Z'
                                            ),
                                            '\s+([+-]\d\d:?(\d\d)?)$',
                                            '\1'
                                        ),
                                        '(:\d\d),(\d+)',
                                        '\1.\2'
                                    ),
                                    '^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)',
                                    '\1-\2-\3 \4:\5:\6'
                                ),
                                '^(\d{4}-\d\d-\d\d[ T]\d\d)($|Z|[+-])',
                                '\1:00\2'
                            ) as timestamptz
                        )
                    )
                )
            when $timestamp_unit = 'days' then try_cast(tick * 86400000000 as bigint)
            -- Excel's day 25569 is 1970-01-01.
            when $timestamp_unit = 'excel' then try_cast(round((tick - 25569) * 86400000) * 1000 as bigint)
            when $timestamp_unit = 's' or ($timestamp_unit = 'auto' and abs(tick) < 1e11)
                then try_cast(tick * 1000000 as bigint)
            when $timestamp_unit = 'ms' or ($timestamp_unit = 'auto' and abs(tick) < 1e14)
                then try_cast(tick * 1000 as bigint)
            when $timestamp_unit = 'us' or ($timestamp_unit = 'auto' and abs(tick) < 1e17)
                then try_cast(tick as bigint)
            else try_cast(floor(tick / 1000) as bigint)
        end as moment,
        plain_number(rating) as stars,
        plain_number(event_value) as amount,
        list_position(cast($types as varchar[]), trim(event_type, $blanks)) as type_place
    from records
),

-- is_plain: the id is spelled as an integer usually is. In this common case nothing else has to be checked.
compared as (
    select
        *,
        $users_are_integers and coalesce(cast(user_key as varchar) = user_id, false) as user_is_plain,
        case
            when not $has_quotes or user_is_plain then false
            when contains(user_id, chr(10)) or contains(user_id, chr(13))
                then regexp_matches(trim(user_id, $blanks), '[\n\r]')
            else false
        end as user_is_two_lines,
        $items_are_integers and coalesce(cast(item_key as varchar) = item_id, false) as item_is_plain,
        case
            when not $has_quotes or item_is_plain then false
            when contains(item_id, chr(10)) or contains(item_id, chr(13))
                then regexp_matches(trim(item_id, $blanks), '[\n\r]')
            else false
        end as item_is_two_lines
    from parsed
),

checked as (
    select
        *,
        case
            when user_is_plain then true
            when $users_are_integers
                then coalesce(
                    user_key is not null and regexp_matches(trim(user_id, $blanks), $whole_number)
                    or regexp_matches(user_id, $lost_digits)
                    or regexp_matches(user_id, $null_words)
                    or user_is_two_lines,
                    true
                )
            else coalesce(cast(user_key as varchar) = trim(user_id, $blanks), true)
        end as user_fits,
        case
            when item_is_plain then true
            when $items_are_integers
                then coalesce(
                    item_key is not null and regexp_matches(trim(item_id, $blanks), $whole_number)
                    or regexp_matches(item_id, $lost_digits)
                    or regexp_matches(item_id, $null_words)
                    or item_is_two_lines,
                    true
                )
            else coalesce(cast(item_key as varchar) = trim(item_id, $blanks), true)
        end as item_fits,
        if($types is null, 1, cast($type_weights as double[])[type_place]) as type_factor,
        case $value_weight
            when 'linear' then amount
            when 'log' then if(amount < 0, null, ln(1 + greatest(amount, 0)))
            when 'steps'
                then
                    if(
                        isfinite(amount),
                        coalesce(
                            cast($step_weights as double[])[
                                len(list_filter(cast($steps as double[]), lambda step: step <= amount))
                            ],
                            0
                        ),
                        null
                    )
            else 1
        end as value_factor
    from compared
),

weighed as (
    select
        *,
        -- A dislike of either kind is one.
        try_cast(
            if(least(type_factor, value_factor) < 0, -1, 1) * abs(type_factor * value_factor) as float
        ) as event_weight
    from checked
)

select
    user_key as user_id,
    item_key as item_id,
    moment,
    coalesce(moment < $since, false) as before_since,
    $min_rating is not null and stars < $min_rating as below_min_rating,
    cast(
        case
            -- A year must have four digits: 28/01/10 is not a day of the year 28.
            when
                event_time is not null
                and (moment is null or moment not between -30610224000000000 and 253402300799999999)
                then 'unreadable time'
            when
                not user_is_plain
                and (contains(user_id, '+') or contains(user_id, 'E') or contains(user_id, '.0'))
                and regexp_matches(user_id, $lost_digits)
                then 'user id has lost digits'
            when
                not item_is_plain
                and (contains(item_id, '+') or contains(item_id, 'E') or contains(item_id, '.0'))
                and regexp_matches(item_id, $lost_digits)
                then 'item id has lost digits'
            when user_is_two_lines then 'user id holds a line end'
            when $users_must_be_integers and not user_fits then 'user id is not an integer'
            when item_is_two_lines then 'item id holds a line end'
            when $items_must_be_integers and not item_fits then 'item id is not an integer'
            when user_key is null then 'no user'
            when item_key is null then 'no item'
            when event_time is null then 'no time'
            when $min_rating is not null and (stars is null or isnan(stars)) then 'no rating'
            when $types is not null and event_type is null then 'no event type'
            when $types is not null and type_factor is null then 'unknown event type'
            when $value_weight is not null and event_value is null then 'no value'
            when $value_weight is not null and not coalesce(isfinite(event_weight), false) then 'unusable value'
        end
        as enum(
            'no user',
            'no item',
            'no time',
            'unreadable time',
            'no rating',
            'user id has lost digits',
            'item id has lost digits',
            'user id holds a line end',
            'item id holds a line end',
            'user id is not an integer',
            'item id is not an integer',
            'no event type',
            'unknown event type',
            'no value',
            'unusable value'
        )
    ) as problem,
    event_weight as weight,
    coalesce(cast($are_seen as boolean[])[type_place], true) as is_seen,
    user_fits,
    item_fits,
    cast(
        case
            when moment is null then null
            when tick is null then 0
            when tick = 0 then 6
            when abs(tick) < 1e8 then 5
            when abs(tick) < 1e11 then 1
            when abs(tick) < 1e14 then 2
            when abs(tick) < 1e17 then 3
            else 4
        end
        + if(
            tick is not null
            and (contains(event_time, 'e') or contains(event_time, 'E'))
            and regexp_matches(event_time, '^\s*[+-]?\d(\.\d{1,8})?[eE]\+?\d+\s*$'),
            8,
            0
        ) as utinyint
    ) as time_kind,
    user_id as raw_user,
    item_id as raw_item,
    event_time as raw_time,
    rating as raw_rating,
    event_type as raw_event,
    event_value as raw_value,
    file
from weighed
