"""Rules within the ranking: block, allow, pin, boost, cap, diversify. Start at rulebook.read_rules."""
