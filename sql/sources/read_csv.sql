-- One row per record of the CSV files, every value as its text; a record that does not parse goes to reject_errors.
select *
from read_csv(
    $paths,
    columns = $columns,
    delim = $delimiter,
    new_line = $new_line,
    header = $has_header,
    quote = $quote,
    escape = $quote,
    comment = '',
    compression = $compression,
    auto_detect = false,
    filename = 'batchrec_file',
    hive_partitioning = false,
    store_rejects = true
)
