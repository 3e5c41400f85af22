"""Metrics over a whole split, from 0 to 100, as plain functions of targets and predictions."""
