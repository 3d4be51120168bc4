-- One row per record of a CSV file that did not parse, with the byte, from 1, at which it starts.
-- Reads reject_errors and reject_scans, which DuckDB fills in scans of CSV files.
select
    scans.file_path as file,
    min(errors.line_byte_position) as position,
    'malformed (' || lower(min(cast(errors.error_type as varchar))) || ')' as reason,
    any_value(errors.csv_line) as value
from reject_errors as errors
inner join reject_scans as scans on errors.scan_id = scans.scan_id and errors.file_id = scans.file_id
group by scans.file_path, errors.line
order by file, position
