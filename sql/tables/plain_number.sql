-- Macro: the number that a text spells, also with a decimal comma before one or two digits; null for any other text.
create or replace temp macro plain_number(value) as
coalesce(
    try_cast(value as double),
    if(regexp_matches(value, '^\s*[+-]?\d+,\d{1,2}\s*$'), try_cast(replace(value, ',', '.') as double), null)
);
