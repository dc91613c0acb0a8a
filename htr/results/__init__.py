"""What comes of reading and training: tables, scores, curves, and the page on which readings are corrected."""
