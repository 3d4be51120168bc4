"""The score job: a list for every user, chunk by chunk, written as one table. Start at score.score."""
