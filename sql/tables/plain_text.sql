-- Macro: the text of a value, null if empty. Whole numbers of float and decimal columns are written without decimal
-- point and zeros, and zero without a sign.
create or replace temp macro plain_text(value, is_number) as
nullif(
    if(
        is_number,
        regexp_replace(regexp_replace(cast(value as varchar), '\.0*$', ''), '^-0$', '0'),
        cast(value as varchar)
    ),
    ''
);
