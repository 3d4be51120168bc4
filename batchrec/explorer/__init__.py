"""The page of the explore command: look at single users, change their history, see what the list becomes."""
