"""Vocabularies: SentencePiece or bytes for a T5, WordPiece for a BERT."""
