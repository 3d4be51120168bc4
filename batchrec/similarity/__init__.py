"""The similar job: for each item the items closest to it. Start at similar.similar."""
