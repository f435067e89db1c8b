"""How does each format become pieces? Lines, images, texts, boards, and what packages hold."""
