"""Frozen models: found and opened in any known form, built, their weights laid onto devices, converted."""
