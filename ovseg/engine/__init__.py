"""Configs, hooks and optimizer constructors: the parts of a run that are neither model nor data."""
