"""Part 1: real recovery on every state that a kill or a power cut may leave."""
