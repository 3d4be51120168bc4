-- One row: the number of values in each column of a CSV file.
select count(columns(*)) from read_csv($path) -- noqa: AM05
