"""Vocabularies: SentencePiece for a T5, WordPiece for a BERT."""
