"""Configs, hooks and optimiser constructors: the parts of a run that are neither model nor data."""
