"""The tune job: look for options of train that rank held-out items better. Start at tune.tune."""
