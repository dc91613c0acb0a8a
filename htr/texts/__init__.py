"""What the lines say: label tables of any kind, which pictures they name, and how texts are cleaned and ordered."""
