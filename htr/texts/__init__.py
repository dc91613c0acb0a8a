"""What the lines say: label tables and page files of any kind, which pictures they mean, how texts are cleaned."""
