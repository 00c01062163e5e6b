"""Training recipes: one script per family, from a data set to a served model. Run from a checkout, not installed."""
