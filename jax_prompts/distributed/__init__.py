"""Runs on several processes: joining, comparing settings, sharing arrays and stopping together."""
