"""What every script stands on: how it ends, files and their names, several processes, progress."""
