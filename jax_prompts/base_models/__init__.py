"""Frozen models: found and opened in any knnative form, built, their weights laid onto devices, converted."""
