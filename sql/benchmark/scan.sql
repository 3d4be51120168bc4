-- One row: how many values each column of a CSV file has.
select count(columns(*)) from read_csv($path) -- noqa: AM05
