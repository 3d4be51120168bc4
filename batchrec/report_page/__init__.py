"""The page of a night: one HTML file with figures, charts and lists of sample users. Start at page.write_page."""
