"""Base models: opening them in any known form, building them, loading their weights onto devices, converting them."""
