"""Programs compiled for chips that are not here: what fits, what it computes and sends, how fast it should be."""
