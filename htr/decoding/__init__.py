"""From the frames of a network to a text and its probability, with or without prior knowledge of texts."""
