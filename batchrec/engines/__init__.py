"""Engines that score, and build sequences, on more machines than one: thin wrappers, each behind an extra."""
