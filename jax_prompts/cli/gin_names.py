"""Imported by gin files of upstream T5X: those of gin_configs/prompts/ then mean there what they mean here."""

from jax_prompts.cli.gin_settings import register

register()
