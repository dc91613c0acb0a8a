"""From image files to lines: black ink on white paper, of one height, stored, varied, or drawn."""
